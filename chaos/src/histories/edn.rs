//! The part of EDN that histories need: maps, vectors, sets, keywords, integers, strings and `nil`, on one line.

use std::fmt;
use std::iter::Peekable;
use std::str::Chars;

/// Collections within collections at most.
const DEPTH_MAX: usize = 16;

/// A value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Edn {
    /// `nil`.
    Nil,
    /// `true` and `false`.
    Bool(bool),
    /// A number.
    Int(i64),
    /// `:name`.
    Keyword(String),
    /// `"text"`.
    Text(String),
    /// `[a b]`, `(a b)`, and `#{a b}`.
    Sequence(Vec<Self>),
    /// `{a b, c d}`.
    Map(Vec<(Self, Self)>),
}

impl Edn {
    /// A keyword.
    pub fn keyword(name: &str) -> Self {
        Self::Keyword(name.to_owned())
    }

    /// A number, which histories keep below 2^63.
    pub fn int(number: u64) -> Self {
        Self::Int(i64::try_from(number).unwrap_or(i64::MAX))
    }

    /// A number or `nil`.
    pub fn maybe(number: Option<u64>) -> Self {
        number.map_or(Self::Nil, Self::int)
    }

    /// What a map holds under a keyword.
    pub fn get(&self, name: &str) -> Option<&Self> {
        let Self::Map(entries) = self else {
            return None;
        };
        let entry = entries
            .iter()
            .find(|(key, _)| matches!(key, Self::Keyword(key) if key == name));
        entry.map(|(_, value)| value)
    }

    /// A number that is not negative.
    pub fn number(&self) -> Option<u64> {
        match self {
            Self::Int(number) => u64::try_from(*number).ok(),
            Self::Nil
            | Self::Bool(_)
            | Self::Keyword(_)
            | Self::Text(_)
            | Self::Sequence(_)
            | Self::Map(_) => None,
        }
    }

    /// The name of a keyword.
    pub fn name(&self) -> Option<&str> {
        match self {
            Self::Keyword(name) => Some(name),
            Self::Nil
            | Self::Bool(_)
            | Self::Int(_)
            | Self::Text(_)
            | Self::Sequence(_)
            | Self::Map(_) => None,
        }
    }

    /// The items of a sequence.
    pub fn items(&self) -> Option<&[Self]> {
        match self {
            Self::Sequence(items) => Some(items),
            Self::Nil
            | Self::Bool(_)
            | Self::Int(_)
            | Self::Keyword(_)
            | Self::Text(_)
            | Self::Map(_) => None,
        }
    }

    /// Reads one value; nothing may follow.
    pub fn parse(text: &str) -> Result<Self, String> {
        let mut reader = Reader {
            chars: text.chars().peekable(),
        };
        let value = reader.value(0)?;
        reader.skip();
        match reader.chars.next() {
            None => Ok(value),
            Some(found) => Err(format!("{found:?} after the value")),
        }
    }
}

impl fmt::Display for Edn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Nil => f.write_str("nil"),
            Self::Bool(value) => write!(f, "{value}"),
            Self::Int(number) => write!(f, "{number}"),
            Self::Keyword(name) => write!(f, ":{name}"),
            Self::Text(text) => write!(f, "{text:?}"),
            Self::Sequence(items) => {
                let items: Vec<String> = items.iter().map(Self::to_string).collect();
                write!(f, "[{}]", items.join(" "))
            }
            Self::Map(entries) => {
                let entries = entries.iter().map(|(key, value)| format!("{key} {value}"));
                write!(f, "{{{}}}", entries.collect::<Vec<_>>().join(", "))
            }
        }
    }
}

struct Reader<'a> {
    chars: Peekable<Chars<'a>>,
}

impl Reader<'_> {
    /// Passes what EDN counts as space.
    fn skip(&mut self) {
        while self
            .chars
            .next_if(|found| found.is_whitespace() || *found == ',')
            .is_some()
        {}
    }

    fn value(&mut self, depth: usize) -> Result<Edn, String> {
        if depth > DEPTH_MAX {
            return Err(format!(
                "more than {DEPTH_MAX} collections within one another"
            ));
        }
        self.skip();
        match self.chars.next() {
            Some('[') => Ok(Edn::Sequence(self.until(']', depth)?)),
            Some('(') => Ok(Edn::Sequence(self.until(')', depth)?)),
            Some('{') => pairs(self.until('}', depth)?),
            Some('#') => match self.chars.next() {
                Some('{') => Ok(Edn::Sequence(self.until('}', depth)?)),
                _ => Err("tagged values are not read".to_owned()),
            },
            Some(':') => Ok(Edn::Keyword(self.word())),
            Some('"') => self.text(),
            Some(first) => atom(&format!("{first}{}", self.word())),
            None => Err("the line ends too early".to_owned()),
        }
    }

    fn until(&mut self, end: char, depth: usize) -> Result<Vec<Edn>, String> {
        let mut items = Vec::new();
        loop {
            self.skip();
            if self.chars.next_if_eq(&end).is_some() {
                return Ok(items);
            }
            items.push(self.value(depth + 1)?);
        }
    }

    fn word(&mut self) -> String {
        let mut word = String::new();
        while let Some(next) = self
            .chars
            .next_if(|found| !found.is_whitespace() && !",[](){}\"".contains(*found))
        {
            word.push(next);
        }
        word
    }

    fn text(&mut self) -> Result<Edn, String> {
        let mut text = String::new();
        loop {
            match self.chars.next() {
                Some('"') => return Ok(Edn::Text(text)),
                Some('\\') => text.extend(self.chars.next()),
                Some(found) => text.push(found),
                None => return Err("a text without an end".to_owned()),
            }
        }
    }
}

fn pairs(items: Vec<Edn>) -> Result<Edn, String> {
    let mut items = items.into_iter();
    let mut entries = Vec::new();
    while let Some(key) = items.next() {
        let value = items.next().ok_or("a map with a key without a value")?;
        entries.push((key, value));
    }
    Ok(Edn::Map(entries))
}

fn atom(word: &str) -> Result<Edn, String> {
    match word {
        "nil" => Ok(Edn::Nil),
        "true" => Ok(Edn::Bool(true)),
        "false" => Ok(Edn::Bool(false)),
        _ => match word.parse() {
            Ok(number) => Ok(Edn::Int(number)),
            Err(_not_a_number) => Err(format!("{word:?} is no value")),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_of_jepsen_is_read_and_written_again() {
        let line = "{:type :invoke, :f :txn, :value [[:append 5 1] [:r 3 nil]], :process 0, :time 123, :index 0}";
        let parsed = Edn::parse(line).unwrap();
        assert_eq!(parsed.get("process").and_then(Edn::number), Some(0));
        assert_eq!(parsed.to_string(), line);
    }

    #[test]
    fn sets_lists_texts_and_negative_numbers_are_read() {
        let parsed = Edn::parse("{:a #{1 -2} :b (\"x\\\"y\" true)}").unwrap();
        assert_eq!(parsed.to_string(), "{:a [1 -2], :b [\"x\\\"y\" true]}");
    }

    #[test]
    fn what_is_no_value_is_refused() {
        for bad in [
            "",
            "[1 2",
            "{:a}",
            "#inst \"x\"",
            "[1] 2",
            "abc",
            "\"abc",
            &"[".repeat(100),
        ] {
            assert!(Edn::parse(bad).is_err(), "{bad}");
        }
    }
}
