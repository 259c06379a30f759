//! Carrying out a script: in a transaction that is begun anew after a conflict, or against one view.

use bytes::Bytes;
use meridian_client::{Client, Error, KeyRange, ScanQuery, Txn, Versions, View};

use super::args::TxnArgs;
use super::script::{End, Script, Step, parse};
use super::show;
use crate::app::App;
use crate::exit::{Done, Failure, Outcome};

/// What one step showed.
#[derive(Clone, Debug)]
pub(super) enum Shown {
    /// A key.
    Key(Box<Versions>),
    /// Keys of a range.
    Keys(Vec<Versions>),
    /// A write, which shows nothing.
    Write,
}

pub(super) async fn run(app: &mut App<'_>, args: &TxnArgs, text: &str) -> Outcome {
    let script = parse(text).map_err(Failure::Usage)?;
    if args.op_id.is_some() {
        return Err(Failure::usage("--op-id goes with a transaction sent whole"));
    }
    let client = app.client().await?;
    if args.read_only {
        return from_view(app, &client, &script).await;
    }
    match script.end {
        Some(End::Commit) => committed(app, &client, args, &script.steps).await,
        Some(End::Abort) => aborted(app, &client, args, &script.steps).await,
        None => Err(Failure::usage("the script ends without commit or abort")),
    }
}

/// What the last run showed is printed, once it has committed.
async fn committed(app: &mut App<'_>, client: &Client, args: &TxnArgs, steps: &[Step]) -> Outcome {
    let body = |txn: Txn| async move { all(&txn, steps).await };
    let committed = Box::pin(client.txn(&args.options(), body)).await?;
    for shown in &committed.value {
        show::step(app.out, shown)?;
    }
    show::committed(app.out, &committed)?;
    Ok(Done::AsAsked)
}

async fn aborted(app: &mut App<'_>, client: &Client, args: &TxnArgs, steps: &[Step]) -> Outcome {
    let txn = client.begin(&args.options());
    let shown = all(&txn, steps).await?;
    txn.abort();
    for shown in &shown {
        show::step(app.out, shown)?;
    }
    show::aborted(app.out)?;
    Ok(Done::AsAsked)
}

async fn all(txn: &Txn, steps: &[Step]) -> Result<Vec<Shown>, Error> {
    let mut shown = Vec::with_capacity(steps.len());
    for step in steps {
        shown.push(play(txn, step.clone()).await?);
    }
    Ok(shown)
}

/// Carries out one step of a transaction.
pub(super) async fn play(txn: &Txn, step: Step) -> Result<Shown, Error> {
    match step {
        Step::Get(key) => txn.get(key).await.map(|found| Shown::Key(Box::new(found))),
        Step::Scan(prefix) => txn.scan(&KeyRange::prefix(prefix)).await.map(Shown::Keys),
        Step::Put(key, value) => txn.put(key, value).map(|()| Shown::Write),
        Step::Delete(key) => txn.delete(key).map(|()| Shown::Write),
    }
}

async fn from_view(app: &mut App<'_>, client: &Client, script: &Script) -> Outcome {
    if script.steps.iter().any(Step::is_write) {
        return Err(read_only());
    }
    let view = client.view().await?;
    for step in &script.steps {
        let shown = look(&view, step.clone()).await?;
        show::step(app.out, &shown)?;
    }
    close(app, view).await;
    Ok(Done::AsAsked)
}

pub(super) fn read_only() -> Failure {
    Failure::usage("--read-only allows no writes")
}

/// Carries out one step that reads from a view; writes were refused before.
pub(super) async fn look(view: &View, step: Step) -> Result<Shown, Failure> {
    match step {
        Step::Get(key) => Ok(Shown::Key(Box::new(view.get(key).await?))),
        Step::Scan(prefix) => Ok(Shown::Keys(scan(view, prefix).await?)),
        Step::Put(..) | Step::Delete(_) => Err(read_only()),
    }
}

async fn scan(view: &View, prefix: Bytes) -> Result<Vec<Versions>, Error> {
    let query = ScanQuery {
        prefix,
        ..ScanQuery::default()
    };
    let mut scan = view.scan(query);
    let mut entries = Vec::new();
    while let Some(page) = scan.next_page().await? {
        entries.extend(page.entries);
    }
    Ok(entries)
}

/// What was read stands, whether the view could be closed or not.
pub(super) async fn close(app: &mut App<'_>, view: View) {
    if let Err(error) = view.close().await {
        app.out
            .hint(&format!("the view is left to close itself: {error}"));
    }
}
