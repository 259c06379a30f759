//! What the lines of a transaction say.

use bytes::Bytes;

/// One read or write.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Step {
    Get(Bytes),
    /// All keys that begin with it.
    Scan(Bytes),
    Put(Bytes, Bytes),
    Delete(Bytes),
}

/// One line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Line {
    /// A comment or an empty line.
    Nothing,
    Step(Step),
    Commit,
    Abort,
}

/// How a script ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum End {
    Commit,
    Abort,
}

/// A script that was read whole.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Script {
    pub(super) steps: Vec<Step>,
    /// `None` when it does not say.
    pub(super) end: Option<End>,
}

pub(super) const VERBS: &str = "get KEY, scan [PREFIX], put KEY VALUE, delete KEY, commit, abort";

impl Step {
    pub(super) const fn is_write(&self) -> bool {
        match self {
            Self::Put(..) | Self::Delete(_) => true,
            Self::Get(_) | Self::Scan(_) => false,
        }
    }
}

pub(super) fn parse_line(line: &str) -> Result<Line, String> {
    let words = shlex::split(line).ok_or("a quotation mark is not closed")?;
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    let bytes = |text: &str| Bytes::copy_from_slice(text.as_bytes());
    let line = match words.as_slice() {
        [] => Line::Nothing,
        ["get", key] => Line::Step(Step::Get(bytes(key))),
        ["scan"] => Line::Step(Step::Scan(Bytes::new())),
        ["scan", prefix] => Line::Step(Step::Scan(bytes(prefix))),
        ["put", key, value] => Line::Step(Step::Put(bytes(key), bytes(value))),
        ["delete", key] => Line::Step(Step::Delete(bytes(key))),
        ["commit"] => Line::Commit,
        ["abort"] => Line::Abort,
        _ => return Err(format!("a line of a transaction is one of: {VERBS}")),
    };
    Ok(line)
}

/// Reads a script to its end; nothing may follow `commit` or `abort`.
pub(super) fn parse(text: &str) -> Result<Script, String> {
    let mut script = Script {
        steps: Vec::new(),
        end: None,
    };
    for (number, line) in (1..).zip(text.lines()) {
        let at = |what: &str| format!("line {number}: {what}");
        let line = parse_line(line).map_err(|what| at(&what))?;
        let ended = script.end.is_some();
        match line {
            Line::Nothing => {}
            Line::Step(_) | Line::Commit | Line::Abort if ended => {
                return Err(at("the transaction has ended"));
            }
            Line::Step(step) => script.steps.push(step),
            Line::Commit => script.end = Some(End::Commit),
            Line::Abort => script.end = Some(End::Abort),
        }
    }
    Ok(script)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(text: &str) -> Bytes {
        Bytes::copy_from_slice(text.as_bytes())
    }

    #[test]
    fn a_script_is_read_with_comments_and_quotation_marks() {
        let script = parse("# move\nget a\n\nput b 'two words'\nscan\nscan p\ndelete c\ncommit\n#");
        let steps = vec![
            Step::Get(key("a")),
            Step::Put(key("b"), key("two words")),
            Step::Scan(key("")),
            Step::Scan(key("p")),
            Step::Delete(key("c")),
        ];
        let end = Some(End::Commit);
        assert_eq!(script, Ok(Script { steps, end }));
        assert_eq!(parse("get a\nabort").unwrap().end, Some(End::Abort));
        assert_eq!(parse("").unwrap().end, None);
    }

    #[test]
    fn lines_that_make_no_sense_are_told_by_their_number() {
        for bad in [
            "get",
            "get a b",
            "put a",
            "frobnicate",
            "put 'a b",
            "commit now",
        ] {
            let refused = parse(&format!("get a\n{bad}\ncommit")).unwrap_err();
            assert!(refused.starts_with("line 2: "), "{bad}: {refused}");
        }
        assert!(parse("commit\nget a").is_err());
        assert!(parse("abort\ncommit").is_err());
    }
}
