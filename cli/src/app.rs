//! What a command works with: settings, output, clients, and the session it goes on with.

use std::path::PathBuf;
use std::time::Duration;

use bytes::Bytes;
use meridian_client::{Client, DEFAULT_KEYSPACE, ReadLevel, ReadOptions, SessionToken};

use crate::args::{KeyArgs, RangeArgs};
use crate::exit::Failure;
use crate::out::Out;
use crate::settings::Settings;

/// Shortest text that is taken for a token rather than for the name of a file that does not exist yet.
const TOKEN_CHARS_MIN: usize = 32;

type Place = (Vec<String>, Option<String>, Duration, bool);

/// Clients that a shell keeps between its lines.
#[derive(Default)]
pub(crate) struct Clients {
    kept: Vec<(Place, Client)>,
}

impl Clients {
    /// The client of the place that `settings` name, connected the first time.
    pub(crate) async fn client(&mut self, settings: &Settings) -> Result<Client, Failure> {
        let place = (
            settings.endpoints.clone(),
            settings.zone.clone(),
            settings.timeout,
            settings.forward,
        );
        let keyspace = settings.keyspace.as_deref().unwrap_or(DEFAULT_KEYSPACE);
        if let Some((_, client)) = self.kept.iter().find(|(at, _)| *at == place) {
            return Ok(client.keyspace(keyspace));
        }
        let mut builder = Client::builder()
            .endpoints(settings.endpoints.clone())
            .timeout(settings.timeout);
        if let Some(zone) = &settings.zone {
            // Who names a zone wants to know when it does not answer.
            builder = builder.zone(zone).stay_in_zone();
        }
        if settings.forward {
            builder = builder.forward();
        }
        let client = builder.connect().await?;
        self.kept.push((place, client.clone()));
        Ok(client.keyspace(keyspace))
    }
}

/// What one command works with.
pub(crate) struct App<'a> {
    pub(crate) settings: Settings,
    pub(crate) clients: &'a mut Clients,
    pub(crate) out: &'a mut Out,
}

impl<'a> App<'a> {
    pub(crate) fn new(settings: Settings, clients: &'a mut Clients, out: &'a mut Out) -> Self {
        Self {
            settings,
            clients,
            out,
        }
    }

    pub(crate) async fn client(&mut self) -> Result<Client, Failure> {
        self.clients.client(&self.settings).await
    }

    /// Options of a read at `level`, with the session if there is one.
    pub(crate) fn read_options(
        &self,
        level: Option<ReadLevel>,
        session: &Session,
    ) -> Result<ReadOptions, Failure> {
        let level = level.unwrap_or(ReadLevel::OfKeyspace);
        if level == ReadLevel::Session && self.settings.session.is_none() {
            return Err(Failure::usage("--level session needs --session FILE|TOKEN"));
        }
        Ok(ReadOptions {
            level,
            session: session.token.clone(),
            ..ReadOptions::default()
        })
    }
}

/// The session token a command starts with, and where the next one goes.
pub(crate) struct Session {
    pub(crate) token: SessionToken,
    file: Option<PathBuf>,
}

impl Session {
    /// A file that exists is read; what looks like a token is one; anything else is a file to be made.
    pub(crate) fn of(settings: &Settings) -> Result<Self, Failure> {
        let Some(given) = &settings.session else {
            // Whoever reads the output may want to go on from it.
            return Ok(Self {
                token: SessionToken::begin(),
                file: None,
            });
        };
        let path = PathBuf::from(given);
        if path.exists() {
            let text = std::fs::read_to_string(&path)?;
            return Ok(Self {
                token: parse_token(text.trim())?,
                file: Some(path),
            });
        }
        match given.parse() {
            Ok(token) if given.len() >= TOKEN_CHARS_MIN => Ok(Self { token, file: None }),
            _ => Ok(Self {
                token: SessionToken::begin(),
                file: Some(path),
            }),
        }
    }

    /// Keeps the token that the answer brought.
    pub(crate) fn go_on_with(&self, token: &SessionToken) -> Result<(), Failure> {
        match &self.file {
            Some(file) if !token.is_empty() => Ok(std::fs::write(file, format!("{token}\n"))?),
            _ => Ok(()),
        }
    }
}

fn parse_token(text: &str) -> Result<SessionToken, Failure> {
    if text.is_empty() {
        return Ok(SessionToken::begin());
    }
    text.parse()
        .map_err(|error| Failure::usage(format!("session: {error}")))
}

/// The bytes of an argument.
pub(crate) fn bytes_of(text: &std::ffi::OsStr) -> Bytes {
    use std::os::unix::ffi::OsStrExt as _;
    Bytes::copy_from_slice(text.as_bytes())
}

pub(crate) fn optional_bytes(text: Option<&std::ffi::OsString>) -> Bytes {
    text.map(|text| bytes_of(text)).unwrap_or_default()
}

/// The bytes of a key given as text or as base64.
pub(crate) fn key_of(key: &std::ffi::OsStr, base64: bool) -> Result<Bytes, Failure> {
    use base64::Engine as _;
    use base64::engine::general_purpose::STANDARD;
    let bytes = bytes_of(key);
    if !base64 {
        return Ok(bytes);
    }
    match STANDARD.decode(&bytes) {
        Ok(key) => Ok(key.into()),
        Err(error) => Err(Failure::usage(format!("key: {error}"))),
    }
}

impl KeyArgs {
    pub(crate) fn bytes(&self) -> Result<Bytes, Failure> {
        key_of(&self.key, self.key_base64)
    }
}

impl RangeArgs {
    /// The scan that covers the range.
    pub(crate) fn query(&self, read: ReadOptions) -> meridian_client::ScanQuery {
        meridian_client::ScanQuery {
            prefix: optional_bytes(self.prefix.as_ref()),
            from: optional_bytes(self.from.as_ref()),
            to: optional_bytes(self.to.as_ref()),
            read,
            ..meridian_client::ScanQuery::default()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings(session: &str) -> Settings {
        Settings {
            endpoints: Vec::new(),
            zone: None,
            keyspace: None,
            timeout: Duration::from_secs(1),
            session: Some(session.to_owned()),
            forward: false,
        }
    }

    #[test]
    fn a_session_file_is_made_and_kept_up_to_date() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("session");
        let given = settings(path.to_str().unwrap());
        let session = Session::of(&given).unwrap();
        assert_eq!(session.token, SessionToken::begin());

        let token = SessionToken::from(Bytes::from_static(b"seen"));
        session.go_on_with(&token).unwrap();
        assert_eq!(Session::of(&given).unwrap().token, token);
    }

    #[test]
    fn a_token_is_taken_as_it_is() {
        let token = SessionToken::from(Bytes::from_static(&[7; 40]));
        let session = Session::of(&settings(&token.to_string())).unwrap();
        assert_eq!(session.token, token);
    }

    #[test]
    fn a_file_that_holds_no_token_is_a_usage_error() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("session");
        std::fs::write(&path, "not a token!").unwrap();
        let failure = Session::of(&settings(path.to_str().unwrap()))
            .err()
            .unwrap();
        assert_eq!(failure.code(), 2);
    }

    #[test]
    fn a_key_may_be_given_as_base64() {
        assert_eq!(key_of("/g==".as_ref(), true).unwrap().as_ref(), [0xfe]);
        assert!(key_of("!".as_ref(), true).is_err());
    }
}
