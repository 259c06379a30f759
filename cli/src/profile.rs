//! Settings kept under a name, in `$XDG_CONFIG_HOME/meridian/kv.toml`.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::args::{Global, ProfileCommand};
use crate::exit::{Done, Failure, Outcome};
use crate::out::Out;

/// One set of settings.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Profile {
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) endpoints: Vec<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) zone: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) keyspace: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) timeout: Option<String>,
}

/// The file.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Profiles {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) current: Option<String>,
    #[serde(default)]
    pub(crate) profile: BTreeMap<String, Profile>,
}

impl Profiles {
    /// What is kept; nothing when there is no file.
    pub(crate) fn load() -> Result<Self, Failure> {
        match path() {
            Some(path) => Self::load_from(&path),
            None => Ok(Self::default()),
        }
    }

    fn load_from(path: &Path) -> Result<Self, Failure> {
        let text = match std::fs::read_to_string(path) {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Self::default()),
            Err(error) => return Err(at(path, &error)),
        };
        toml::from_str(&text).map_err(|error| at(path, &error))
    }

    fn save(&self) -> Result<(), Failure> {
        let path =
            path().ok_or_else(|| Failure::other("neither XDG_CONFIG_HOME nor HOME is set"))?;
        self.save_to(&path)
    }

    fn save_to(&self, path: &Path) -> Result<(), Failure> {
        let text = toml::to_string(self).map_err(|error| at(path, &error))?;
        if let Some(folder) = path.parent() {
            std::fs::create_dir_all(folder).map_err(|error| at(folder, &error))?;
        }
        std::fs::write(path, text).map_err(|error| at(path, &error))
    }
}

fn at(path: &Path, error: &impl std::fmt::Display) -> Failure {
    Failure::other(format!("{}: {error}", path.display()))
}

fn path() -> Option<PathBuf> {
    let folder = match std::env::var_os("XDG_CONFIG_HOME") {
        Some(folder) if !folder.is_empty() => PathBuf::from(folder),
        _ => PathBuf::from(std::env::var_os("HOME")?).join(".config"),
    };
    Some(folder.join("meridian/kv.toml"))
}

/// `kv profile …`.
pub(crate) fn run(command: ProfileCommand, global: &Global, out: &mut Out) -> Outcome {
    let mut profiles = Profiles::load()?;
    match command {
        ProfileCommand::List => {
            for name in profiles.profile.keys() {
                let used = profiles.current.as_ref() == Some(name);
                out.line(&format!("{name}{}", if used { " (in use)" } else { "" }))?;
            }
            return Ok(Done::AsAsked);
        }
        ProfileCommand::Use { name } => {
            known(&profiles, &name)?;
            profiles.current = Some(name);
        }
        ProfileCommand::Set { name } => {
            profiles.profile.insert(name, from_flags(global));
        }
        ProfileCommand::Delete { name } => {
            known(&profiles, &name)?;
            profiles.profile.remove(&name);
            profiles.current = profiles.current.filter(|current| *current != name);
        }
    }
    profiles.save()?;
    Ok(Done::AsAsked)
}

fn known(profiles: &Profiles, name: &str) -> Result<(), Failure> {
    if profiles.profile.contains_key(name) {
        Ok(())
    } else {
        Err(Failure::other(format!("no profile {name:?}")))
    }
}

fn from_flags(global: &Global) -> Profile {
    Profile {
        endpoints: global.endpoints.clone(),
        zone: global.zone.clone(),
        keyspace: global.keyspace.clone(),
        timeout: global
            .timeout
            .map(|timeout| humantime::format_duration(timeout).to_string()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn profiles_survive_the_file() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("meridian/kv.toml");
        let home = Profile {
            endpoints: vec!["a:1".to_owned()],
            timeout: Some("5s".to_owned()),
            ..Profile::default()
        };
        let profiles = Profiles {
            current: Some("home".to_owned()),
            profile: BTreeMap::from([("home".to_owned(), home)]),
        };
        profiles.save_to(&path).unwrap();
        assert_eq!(Profiles::load_from(&path).unwrap(), profiles);
    }

    #[test]
    fn a_damaged_file_is_named_in_the_error() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("kv.toml");
        std::fs::write(&path, "curent = 1").unwrap();
        let failure = Profiles::load_from(&path).unwrap_err();
        assert!(crate::human::failure(&failure).unwrap().contains("kv.toml"));
    }

    #[test]
    fn a_file_that_is_missing_holds_no_profiles() {
        let folder = tempfile::tempdir().unwrap();
        let profiles = Profiles::load_from(&folder.path().join("none")).unwrap();
        assert_eq!(profiles, Profiles::default());
    }
}
