//! What a line of the shell says.

/// One line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Line {
    /// A comment, an empty line, or one put aside by `!`.
    Nothing,
    /// Go on in this zone; in any without one.
    Use(Option<String>),
    /// The last output must contain this.
    Expect(String),
    /// End a node without warning.
    Kill(String),
    /// Start a node again.
    Start(String),
    Help,
    Exit,
    /// Arguments of `kv`.
    Command(Vec<String>),
}

/// Verbs that stand for `kv fault VERB`.
const FAULT_VERBS: [&str; 4] = ["block", "heal", "delay", "loss"];

pub(super) fn parse(line: &str) -> Result<Line, String> {
    let line = line.trim();
    if line.is_empty() || line.starts_with('#') || line.starts_with('!') {
        return Ok(Line::Nothing);
    }
    if let Some(text) = line.strip_prefix("expect ") {
        return Ok(Line::Expect(unquoted(text.trim()).to_owned()));
    }
    let mut words = shlex::split(line).ok_or("a quotation mark is not closed")?;
    if words.first().is_some_and(|word| word == "kv") {
        words.remove(0);
    }
    let words_after: Vec<&str> = words.iter().skip(1).map(String::as_str).collect();
    let Some(verb) = words.first().map(String::as_str) else {
        return Ok(Line::Nothing);
    };
    match (verb, words_after.as_slice()) {
        ("use", []) => Ok(Line::Use(None)),
        ("use", [zone]) => Ok(Line::Use(Some((*zone).to_owned()))),
        ("use", _) => Err("use ZONE".to_owned()),
        ("expect", _) => Err("expect TEXT".to_owned()),
        ("kill", [node]) => Ok(Line::Kill((*node).to_owned())),
        ("kill", _) => Err("kill NODE".to_owned()),
        ("start", [node]) => Ok(Line::Start((*node).to_owned())),
        ("start", _) => Err("start NODE".to_owned()),
        ("help", []) => Ok(Line::Help),
        ("exit" | "quit", []) => Ok(Line::Exit),
        (verb, _) if FAULT_VERBS.contains(&verb) => {
            words.insert(0, "fault".to_owned());
            Ok(Line::Command(words))
        }
        _ => Ok(Line::Command(words)),
    }
}

/// Quotation marks around the whole text are not part of it.
fn unquoted(text: &str) -> &str {
    let inner = |mark: char| {
        text.strip_prefix(mark)
            .and_then(|rest| rest.strip_suffix(mark))
    };
    inner('"').or_else(|| inner('\'')).unwrap_or(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn command(words: &[&str]) -> Line {
        Line::Command(words.iter().map(|word| (*word).to_owned()).collect())
    }

    #[test]
    fn comments_and_lines_put_aside_do_nothing() {
        for line in ["", "   ", "# put a b", "!put a b", "  ! kill n1", "kv"] {
            assert_eq!(parse(line), Ok(Line::Nothing), "{line:?}");
        }
    }

    #[test]
    fn verbs_of_the_shell_are_recognised() {
        assert_eq!(
            parse("use eu-west"),
            Ok(Line::Use(Some("eu-west".to_owned())))
        );
        assert_eq!(parse("use"), Ok(Line::Use(None)));
        assert_eq!(parse("kill n1"), Ok(Line::Kill("n1".to_owned())));
        assert_eq!(parse("start n1"), Ok(Line::Start("n1".to_owned())));
        assert_eq!(parse(" quit "), Ok(Line::Exit));
    }

    #[test]
    fn fault_verbs_stand_alone() {
        assert_eq!(
            parse("block a b"),
            Ok(command(&["fault", "block", "a", "b"]))
        );
        assert_eq!(parse("heal"), Ok(command(&["fault", "heal"])));
    }

    #[test]
    fn every_other_line_is_a_command_with_or_without_kv() {
        assert_eq!(parse("put k 'a b'"), Ok(command(&["put", "k", "a b"])));
        assert_eq!(
            parse("kv get k --json"),
            Ok(command(&["get", "k", "--json"]))
        );
    }

    #[test]
    fn expect_takes_the_rest_of_the_line() {
        let expected = |text: &str| Ok(Line::Expect(text.to_owned()));
        assert_eq!(parse("expect 2 siblings"), expected("2 siblings"));
        assert_eq!(parse("expect \"it's\""), expected("it's"));
        assert_eq!(parse("expect don't # know"), expected("don't # know"));
    }

    #[test]
    fn malformed_lines_are_refused() {
        for line in [
            "put k 'open",
            "expect",
            "kill",
            "kill a b",
            "start",
            "use a b",
        ] {
            assert!(parse(line).is_err(), "{line:?}");
        }
    }
}
