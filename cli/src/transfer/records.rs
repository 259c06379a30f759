//! One record as one line, in both forms. What is written can be read back, byte for byte.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use bytes::Bytes;
use serde::Deserialize;
use serde_json::{Map, Value};

use crate::args::Format;
use crate::json::set_bytes;

/// A key and its value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Record {
    pub(super) key: Bytes,
    pub(super) value: Bytes,
}

/// Reads a line without its line break.
pub(super) fn parse(format: Format, line: &[u8]) -> Result<Record, String> {
    let record = match format {
        Format::Jsonl => parse_json(line)?,
        Format::Tsv => parse_tsv(line)?,
    };
    if record.key.is_empty() {
        return Err("the key is empty".to_owned());
    }
    Ok(record)
}

/// Appends a line with its line break.
pub(super) fn write(format: Format, record: &Record, into: &mut Vec<u8>) {
    match format {
        Format::Jsonl => {
            let mut object = Map::new();
            set_bytes(&mut object, "key", &record.key);
            set_bytes(&mut object, "value", &record.value);
            into.extend_from_slice(Value::Object(object).to_string().as_bytes());
        }
        Format::Tsv => {
            escape(&record.key, into);
            into.push(b'\t');
            escape(&record.value, into);
        }
    }
    into.push(b'\n');
}

#[derive(Deserialize)]
struct JsonRecord {
    key: Option<String>,
    key_base64: Option<String>,
    value: Option<String>,
    value_base64: Option<String>,
}

fn parse_json(line: &[u8]) -> Result<Record, String> {
    let record: JsonRecord = serde_json::from_slice(line).map_err(|error| error.to_string())?;
    Ok(Record {
        key: either("key", record.key, record.key_base64)?,
        value: either("value", record.value, record.value_base64)?,
    })
}

fn either(name: &str, text: Option<String>, base64: Option<String>) -> Result<Bytes, String> {
    match (text, base64) {
        (Some(text), None) => Ok(text.into()),
        (None, Some(base64)) => match BASE64.decode(&base64) {
            Ok(bytes) => Ok(bytes.into()),
            Err(error) => Err(format!("{name}_base64: {error}")),
        },
        (None, None) => Err(format!("neither {name} nor {name}_base64 is there")),
        (Some(_), Some(_)) => Err(format!("both {name} and {name}_base64 are there")),
    }
}

fn parse_tsv(line: &[u8]) -> Result<Record, String> {
    let mut fields = line.splitn(2, |byte| *byte == b'\t');
    let (Some(key), Some(value)) = (fields.next(), fields.next()) else {
        return Err("no tab between key and value".to_owned());
    };
    if value.contains(&b'\t') {
        return Err("more than one tab; write tabs in values as \\t".to_owned());
    }
    Ok(Record {
        key: unescape(key)?,
        value: unescape(value)?,
    })
}

fn escape(bytes: &[u8], into: &mut Vec<u8>) {
    for byte in bytes {
        match byte {
            b'\t' => into.extend_from_slice(b"\\t"),
            b'\n' => into.extend_from_slice(b"\\n"),
            b'\r' => into.extend_from_slice(b"\\r"),
            b'\\' => into.extend_from_slice(b"\\\\"),
            other => into.push(*other),
        }
    }
}

fn unescape(field: &[u8]) -> Result<Bytes, String> {
    let mut plain = Vec::with_capacity(field.len());
    let mut rest = field.iter();
    while let Some(byte) = rest.next() {
        if *byte != b'\\' {
            plain.push(*byte);
            continue;
        }
        match rest.next() {
            Some(b't') => plain.push(b'\t'),
            Some(b'n') => plain.push(b'\n'),
            Some(b'r') => plain.push(b'\r'),
            Some(b'\\') => plain.push(b'\\'),
            Some(_) | None => {
                return Err("a backslash before none of t, n, r, \\".to_owned());
            }
        }
    }
    Ok(plain.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(key: &'static [u8], value: &'static [u8]) -> Record {
        Record {
            key: Bytes::from_static(key),
            value: Bytes::from_static(value),
        }
    }

    #[test]
    fn what_is_written_is_read_back_in_both_forms() {
        let records = [
            record(b"k", b"v"),
            record(b"k", b""),
            record(
                "schl\u{fc}ssel".as_bytes(),
                b"tab\t line\n return\r back\\slash \"quoted\"",
            ),
            record(&[0xff, 0, b'\t', b'\n', b'\\'], &[0xfe, b'\r', b'\n']),
        ];
        for format in [Format::Jsonl, Format::Tsv] {
            for record in &records {
                let mut line = Vec::new();
                write(format, record, &mut line);
                assert_eq!(line.pop(), Some(b'\n'));
                assert!(!line.contains(&b'\n'));
                assert_eq!(parse(format, &line).as_ref(), Ok(record));
            }
        }
    }

    #[test]
    fn json_with_further_fields_is_accepted() {
        let line = br#"{"key":"k","value":"v","note":[1]}"#;
        assert_eq!(parse(Format::Jsonl, line), Ok(record(b"k", b"v")));
    }

    #[test]
    fn malformed_lines_are_refused() {
        for line in [
            "",
            "k",
            "[]",
            r#"{"key":"k"}"#,
            r#"{"value":"v"}"#,
            r#"{"key":"","value":"v"}"#,
            r#"{"key":1,"value":"v"}"#,
            r#"{"key":"k","value":{}}"#,
            r#"{"key":"k","key_base64":"aw==","value":"v"}"#,
            r#"{"key":"k","value_base64":"!"}"#,
            r#"{"key":"k","value":"v"} tail"#,
        ] {
            assert!(parse(Format::Jsonl, line.as_bytes()).is_err(), "{line}");
        }
        for line in ["", "k", "\tv", "k\tv\tw", "k\tv\\", "k\tv\\x"] {
            assert!(parse(Format::Tsv, line.as_bytes()).is_err(), "{line}");
        }
    }
}
