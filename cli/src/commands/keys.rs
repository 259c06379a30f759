//! `put`, `get`, `delete`: one key.

use std::path::Path;

use bytes::Bytes;
use meridian_client::{Intent, WriteOptions, Written};
use tokio::io::AsyncReadExt as _;

use crate::app::{App, Session, bytes_of};
use crate::args::{DeleteArgs, GetArgs, PutArgs, WriteArgs};
use crate::exit::{Done, Failure, Outcome};
use crate::{human, json};

/// Standard input and files are read no further: the largest value a server may be told to accept is far below.
const VALUE_BYTES_MAX: u64 = 64 << 20;

pub(crate) async fn put(app: &mut App<'_>, args: PutArgs) -> Outcome {
    let key = args.key.bytes()?;
    let value = value_of(&args).await?;
    let session = Session::of(&app.settings)?;
    let mut options = write_options(&args.write, &session);
    options.ttl = args.ttl;
    options.lease = args.lease;
    let written = app.client().await?.put(key, value, &options).await?;
    acknowledge(app, &written, &session)
}

pub(crate) async fn delete(app: &mut App<'_>, args: DeleteArgs) -> Outcome {
    let key = args.key.bytes()?;
    let session = Session::of(&app.settings)?;
    let options = write_options(&args.write, &session);
    let written = app.client().await?.delete(key, &options).await?;
    acknowledge(app, &written, &session)
}

fn write_options(args: &WriteArgs, session: &Session) -> WriteOptions {
    let intent = match (&args.context, &args.if_context, &args.if_value) {
        (Some(context), _, _) => Intent::Context(context.clone()),
        (None, Some(context), _) => Intent::IfContext(context.clone()),
        (None, None, Some(value)) => Intent::IfValue(bytes_of(value)),
        (None, None, None) if args.overwrite => Intent::Overwrite,
        (None, None, None) if args.if_absent => Intent::IfAbsent,
        (None, None, None) => Intent::Blind,
    };
    WriteOptions {
        intent,
        level: args.write_level.unwrap_or_default(),
        op_id: args.op_id,
        ttl: None,
        lease: None,
        session: session.token.clone(),
    }
}

fn acknowledge(app: &mut App<'_>, written: &Written, session: &Session) -> Outcome {
    session.go_on_with(&written.session)?;
    if app.out.json {
        app.out.object(&json::written(written))?;
    } else {
        app.out.line(&human::written(written))?;
    }
    Ok(Done::AsAsked)
}

async fn value_of(args: &PutArgs) -> Result<Bytes, Failure> {
    match (&args.file, &args.value) {
        (Some(file), _) => read_file(file).await,
        (None, Some(value)) if value == "-" => read_all(tokio::io::stdin(), "standard input").await,
        (None, Some(value)) => Ok(bytes_of(value)),
        (None, None) => Err(Failure::usage("a value is needed")),
    }
}

async fn read_file(path: &Path) -> Result<Bytes, Failure> {
    let name = path.display().to_string();
    let file = tokio::fs::File::open(path).await;
    let file = file.map_err(|error| Failure::other(format!("{name}: {error}")))?;
    read_all(file, &name).await
}

async fn read_all(from: impl tokio::io::AsyncRead + Unpin, name: &str) -> Result<Bytes, Failure> {
    let mut value = Vec::new();
    let reading = from.take(VALUE_BYTES_MAX + 1).read_to_end(&mut value).await;
    let read = reading.map_err(|error| Failure::other(format!("{name}: {error}")))?;
    if u64::try_from(read).is_ok_and(|read| read > VALUE_BYTES_MAX) {
        return Err(Failure::usage(format!(
            "{name} holds more than {VALUE_BYTES_MAX} bytes"
        )));
    }
    Ok(value.into())
}

pub(crate) async fn get(app: &mut App<'_>, args: GetArgs) -> Outcome {
    let key = args.key.bytes()?;
    let session = Session::of(&app.settings)?;
    let mut options = app.read_options(args.level, &session)?;
    options.on_behind = args.on_behind.unwrap_or_default();
    let versions = app.client().await?.get(key, &options).await?;
    session.go_on_with(&versions.session)?;

    let done = match (versions.in_conflict(), versions.found) {
        (true, _) => Done::Conflict,
        (false, true) => Done::AsAsked,
        (false, false) => Done::NotFound,
    };
    if args.raw {
        match versions.value() {
            Some(value) => app.out.bytes(value)?,
            None => app.out.note(&human::versions(&versions)),
        }
    } else if app.out.json {
        app.out.object(&json::versions(&versions))?;
    } else {
        app.out.line(&human::versions(&versions))?;
        if done == Done::Conflict {
            let key = human::text(&versions.key);
            app.out.hint(&format!(
                "resolve it: kv resolve {key} --choose DOT, or --with COMMAND"
            ));
        }
    }
    Ok(done)
}
