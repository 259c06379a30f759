//! Where a command finds the cluster: flags, then environment, then profile, then defaults.

use std::time::Duration;

use crate::args::Global;
use crate::exit::Failure;
use crate::parse;
use crate::profile::{Profile, Profiles};

const ENDPOINT_WITHOUT_SETTINGS: &str = "127.0.0.1:7400";
const TIMEOUT_WITHOUT_SETTINGS: Duration = Duration::from_secs(5);

/// What a command was told about where and how.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Settings {
    pub(crate) endpoints: Vec<String>,
    /// `None`: whatever answers first.
    pub(crate) zone: Option<String>,
    /// `None`: `default`, or all where that makes sense.
    pub(crate) keyspace: Option<String>,
    pub(crate) timeout: Duration,
    pub(crate) session: Option<String>,
    /// What is for a home zone elsewhere is forwarded.
    pub(crate) forward: bool,
}

impl Settings {
    /// From this process's flags, environment and profile file.
    pub(crate) fn from_process(global: &Global) -> Result<Self, Failure> {
        let environment = |name: &str| std::env::var(name).ok();
        let profiles = Profiles::load()?;
        let wanted = global.profile.as_ref().or(profiles.current.as_ref());
        let profile = match wanted {
            None => Profile::default(),
            Some(name) => profiles
                .profile
                .get(name)
                .cloned()
                .ok_or_else(|| Failure::other(format!("no profile {name:?}")))?,
        };
        Self::resolve(global, environment, profile)
    }

    fn resolve(
        global: &Global,
        environment: impl Fn(&str) -> Option<String>,
        profile: Profile,
    ) -> Result<Self, Failure> {
        let environment = |name| environment(name).filter(|value| !value.is_empty());
        let endpoints = [
            global.endpoints.clone(),
            environment("KV_ENDPOINTS").map_or_else(Vec::new, |list| split(&list)),
            profile.endpoints,
            vec![ENDPOINT_WITHOUT_SETTINGS.to_owned()],
        ];
        let timeout = match environment("KV_TIMEOUT").or(profile.timeout) {
            Some(text) => parse::timeout(&text)
                .map_err(|error| Failure::usage(format!("timeout {text:?}: {error}")))?,
            None => TIMEOUT_WITHOUT_SETTINGS,
        };
        let first = endpoints.into_iter().find(|list| !list.is_empty());
        Ok(Self {
            endpoints: first.unwrap_or_default(),
            zone: global
                .zone
                .clone()
                .or_else(|| environment("KV_ZONE"))
                .or(profile.zone),
            keyspace: global
                .keyspace
                .clone()
                .or_else(|| environment("KV_KEYSPACE"))
                .or(profile.keyspace),
            timeout: global.timeout.unwrap_or(timeout),
            session: global.session.clone(),
            forward: global.forward,
        })
    }

    /// The same, where these flags say nothing else: for a line in a shell.
    pub(crate) fn overridden_by(&self, global: &Global) -> Self {
        let endpoints = if global.endpoints.is_empty() {
            self.endpoints.clone()
        } else {
            global.endpoints.clone()
        };
        Self {
            endpoints,
            zone: global.zone.clone().or_else(|| self.zone.clone()),
            keyspace: global.keyspace.clone().or_else(|| self.keyspace.clone()),
            timeout: global.timeout.unwrap_or(self.timeout),
            session: global.session.clone().or_else(|| self.session.clone()),
            forward: global.forward || self.forward,
        }
    }
}

fn split(list: &str) -> Vec<String> {
    let parts = list.split(',').map(str::trim);
    parts
        .filter(|part| !part.is_empty())
        .map(str::to_owned)
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn profile() -> Profile {
        Profile {
            endpoints: vec!["profile:1".to_owned()],
            zone: Some("profile".to_owned()),
            keyspace: Some("profile".to_owned()),
            timeout: Some("1s".to_owned()),
        }
    }

    fn environment(name: &str) -> Option<String> {
        let value = match name {
            "KV_ENDPOINTS" => "env:1, env:2,",
            "KV_ZONE" => "env",
            "KV_TIMEOUT" => "2s",
            _ => return None,
        };
        Some(value.to_owned())
    }

    #[test]
    fn flags_win_over_the_environment_and_that_over_the_profile() {
        let flags = Global {
            zone: Some("flag".to_owned()),
            ..Global::default()
        };
        let settings = Settings::resolve(&flags, environment, profile()).unwrap();
        assert_eq!(settings.zone.as_deref(), Some("flag"));
        assert_eq!(settings.endpoints, ["env:1", "env:2"]);
        assert_eq!(settings.timeout, Duration::from_secs(2));
        assert_eq!(settings.keyspace.as_deref(), Some("profile"));
    }

    #[test]
    fn without_anything_there_are_defaults() {
        let settings = Settings::resolve(&Global::default(), |_| None, Profile::default()).unwrap();
        assert_eq!(settings.endpoints, [ENDPOINT_WITHOUT_SETTINGS]);
        assert_eq!(settings.zone, None);
        assert_eq!(settings.timeout, Duration::from_secs(5));
    }

    #[test]
    fn a_malformed_timeout_in_the_environment_is_a_usage_error() {
        let environment = |name: &str| (name == "KV_TIMEOUT").then(|| "soon".to_owned());
        let failure =
            Settings::resolve(&Global::default(), environment, Profile::default()).unwrap_err();
        assert_eq!(failure.code(), 2);
    }

    #[test]
    fn a_line_in_a_shell_overrides_only_what_it_names() {
        let base = Settings::resolve(&Global::default(), environment, profile()).unwrap();
        let flags = Global {
            keyspace: Some("other".to_owned()),
            ..Global::default()
        };
        let settings = base.overridden_by(&flags);
        assert_eq!(settings.keyspace.as_deref(), Some("other"));
        assert_eq!(settings.endpoints, base.endpoints);
    }
}
