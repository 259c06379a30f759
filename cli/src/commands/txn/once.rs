//! A transaction sent whole: one JSON object.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use bytes::Bytes;
use meridian_client::{Action, Compare, Context, Intent, Transaction};
use serde::Deserialize;

use super::args::TxnArgs;
use super::show;
use crate::app::App;
use crate::exit::{Done, Failure, Outcome};

pub(super) async fn run(app: &mut App<'_>, args: &TxnArgs, text: &str) -> Outcome {
    if args.read_only {
        return Err(Failure::usage("--read-only goes with a script"));
    }
    let mut transaction = parse(text).map_err(Failure::Usage)?.options(args.options());
    if let Some(op_id) = args.op_id {
        transaction = transaction.op_id(op_id);
    }
    let client = app.client().await?;
    let outcome = Box::pin(client.transact(transaction)).await?;
    show::outcome(app.out, &outcome)?;
    Ok(Done::AsAsked)
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Form {
    #[serde(default)]
    compare: Vec<CompareForm>,
    #[serde(default)]
    then: Vec<ActionForm>,
    #[serde(default, rename = "else")]
    otherwise: Vec<ActionForm>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct CompareForm {
    key: Option<String>,
    key_base64: Option<String>,
    value: Option<String>,
    value_base64: Option<String>,
    absent: Option<bool>,
    exists: Option<bool>,
    context: Option<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct ActionForm {
    get: Option<String>,
    get_base64: Option<String>,
    put: Option<String>,
    put_base64: Option<String>,
    delete: Option<String>,
    delete_base64: Option<String>,
    value: Option<String>,
    value_base64: Option<String>,
    overwrite: Option<bool>,
    if_absent: Option<bool>,
    if_value: Option<String>,
    if_value_base64: Option<String>,
    context: Option<String>,
    if_context: Option<String>,
}

/// The transaction that an object describes.
fn parse(text: &str) -> Result<Transaction, String> {
    let form: Form = serde_json::from_str(text).map_err(|error| error.to_string())?;
    let mut transaction = Transaction::new();
    for (place, compare) in (1..).zip(form.compare) {
        let compare = compare.read().map_err(|what| at("compare", place, &what))?;
        transaction = transaction.when(compare);
    }
    for (place, action) in (1..).zip(form.then) {
        let action = action.read().map_err(|what| at("then", place, &what))?;
        transaction = transaction.then(action);
    }
    for (place, action) in (1..).zip(form.otherwise) {
        let action = action.read().map_err(|what| at("else", place, &what))?;
        transaction = transaction.otherwise(action);
    }
    Ok(transaction)
}

fn at(list: &str, place: u32, what: &str) -> String {
    format!("{list}, {place}: {what}")
}

impl CompareForm {
    fn read(self) -> Result<Compare, String> {
        let key = either("key", self.key, self.key_base64)?.ok_or("a key is needed")?;
        let value = either("value", self.value, self.value_base64)?;
        let absent = flag("absent", self.absent)?;
        let exists = flag("exists", self.exists)?;
        let wanted = "one of value, absent, exists and context is needed";
        match (value, absent, exists, self.context) {
            (Some(value), false, false, None) => Ok(Compare::value(key, value)),
            (None, true, false, None) => Ok(Compare::absent(key)),
            (None, false, true, None) => Ok(Compare::exists(key)),
            (None, false, false, Some(token)) => Ok(Compare::context(key, context(&token)?)),
            _ => Err(wanted.to_owned()),
        }
    }
}

impl ActionForm {
    fn read(mut self) -> Result<Action, String> {
        let intent = self.intent()?;
        let get = either("get", self.get, self.get_base64)?;
        let put = either("put", self.put, self.put_base64)?;
        let delete = either("delete", self.delete, self.delete_base64)?;
        let value = either("value", self.value, self.value_base64)?;
        match (get, put, delete, value) {
            (Some(key), None, None, None) if intent == Intent::Blind => Ok(Action::Get(key)),
            (Some(_), None, None, None) => Err("a get has no condition".to_owned()),
            (None, Some(key), None, Some(value)) => Ok(Action::Put { key, value, intent }),
            (None, Some(_), None, None) => Err("a put needs a value".to_owned()),
            (None, None, Some(key), None) => Ok(Action::Delete { key, intent }),
            _ => Err("one of get, put with value, and delete is needed".to_owned()),
        }
    }

    fn intent(&mut self) -> Result<Intent, String> {
        let mut intents = Vec::new();
        if flag("overwrite", self.overwrite)? {
            intents.push(Intent::Overwrite);
        }
        if flag("if_absent", self.if_absent)? {
            intents.push(Intent::IfAbsent);
        }
        if let Some(value) = either(
            "if_value",
            self.if_value.take(),
            self.if_value_base64.take(),
        )? {
            intents.push(Intent::IfValue(value));
        }
        if let Some(token) = &self.context {
            intents.push(Intent::Context(context(token)?));
        }
        if let Some(token) = &self.if_context {
            intents.push(Intent::IfContext(context(token)?));
        }
        match (intents.pop(), intents.is_empty()) {
            (None, _) => Ok(Intent::Blind),
            (Some(only), true) => Ok(only),
            (Some(_), false) => Err("a write has one condition at most".to_owned()),
        }
    }
}

/// A false flag is more likely a mistake than a way to say nothing.
fn flag(name: &str, given: Option<bool>) -> Result<bool, String> {
    match given {
        Some(false) => Err(format!("{name} is true or left out")),
        Some(true) => Ok(true),
        None => Ok(false),
    }
}

fn context(token: &str) -> Result<Context, String> {
    token.parse().map_err(|error| format!("context: {error}"))
}

fn either(
    name: &str,
    text: Option<String>,
    base64: Option<String>,
) -> Result<Option<Bytes>, String> {
    match (text, base64) {
        (Some(text), None) => Ok(Some(text.into())),
        (None, Some(base64)) => match BASE64.decode(&base64) {
            Ok(bytes) => Ok(Some(bytes.into())),
            Err(error) => Err(format!("{name}_base64: {error}")),
        },
        (None, None) => Ok(None),
        (Some(_), Some(_)) => Err(format!("both {name} and {name}_base64 are there")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_form_of_the_help_is_understood() {
        let text = r#"{"compare":[{"key":"a","value":"1"},{"key":"b","absent":true},
            {"key":"c","exists":true},{"key":"d","context":"AAEC"}],
            "then":[{"put":"a","value":"2"},{"get":"b"},{"delete":"c"}],"else":[{"get":"a"}]}"#;
        let token: Context = "AAEC".parse().unwrap();
        let expected = Transaction::new()
            .when(Compare::value("a", "1"))
            .when(Compare::absent("b"))
            .when(Compare::exists("c"))
            .when(Compare::context("d", token))
            .then(Action::put("a", "2"))
            .then(Action::get("b"))
            .then(Action::delete("c"))
            .otherwise(Action::get("a"));
        assert_eq!(parse(text), Ok(expected));
    }

    #[test]
    fn bytes_are_given_as_base64_and_writes_have_conditions() {
        let text = r#"{"compare":[{"key_base64":"/w==","value_base64":"/g=="}],
            "then":[{"put_base64":"/w==","value":"x","if_value_base64":"/g=="},
                    {"delete":"d","if_absent":true}, {"put":"e","value":"","overwrite":true}]}"#;
        let bytes = |byte: u8| Bytes::copy_from_slice(&[byte]);
        let expected = Transaction::new()
            .when(Compare::value(bytes(0xff), bytes(0xfe)))
            .then(Action::Put {
                key: bytes(0xff),
                value: "x".into(),
                intent: Intent::IfValue(bytes(0xfe)),
            })
            .then(Action::Delete {
                key: "d".into(),
                intent: Intent::IfAbsent,
            })
            .then(Action::Put {
                key: "e".into(),
                value: Bytes::new(),
                intent: Intent::Overwrite,
            });
        assert_eq!(parse(text), Ok(expected));
    }

    #[test]
    fn what_makes_no_sense_is_refused_with_its_place() {
        for (text, place) in [
            (r#"{"compare":[{"key":"a"}]}"#, "compare, 1"),
            (r#"{"compare":[{"value":"a"}]}"#, "compare, 1"),
            (r#"{"compare":[{"key":"a","absent":false}]}"#, "compare, 1"),
            (
                r#"{"compare":[{"key":"a","absent":true,"value":"1"}]}"#,
                "compare, 1",
            ),
            (r#"{"then":[{"get":"a"},{"put":"a"}]}"#, "then, 2"),
            (r#"{"then":[{"get":"a","put":"b","value":""}]}"#, "then, 1"),
            (r#"{"then":[{"get":"a","if_absent":true}]}"#, "then, 1"),
            (r#"{"then":[{"delete":"a","value":"1"}]}"#, "then, 1"),
            (
                r#"{"then":[{"delete":"a","if_absent":true,"overwrite":true}]}"#,
                "then, 1",
            ),
            (r#"{"else":[{}]}"#, "else, 1"),
            (r#"{"then":[{"get_base64":"!"}]}"#, "get_base64"),
            (r#"{"otherwise":[]}"#, "unknown field"),
            (r#"{"then":[{"gets":"a"}]}"#, ""),
            (r#"{"then":[]} tail"#, "trailing"),
        ] {
            let refused = parse(text).unwrap_err();
            assert!(refused.contains(place), "{text}: {refused}");
        }
    }
}
