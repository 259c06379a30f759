//! A transaction whose lines are carried out as they come, from somebody who types or from a program that answers.

use meridian_client::{Client, Error, Txn, View};

use super::args::TxnArgs;
use super::play::{Shown, close, look, play, read_only};
use super::script::{Line, Step, VERBS, parse_line};
use super::show;
use crate::app::App;
use crate::exit::{Done, Failure, Outcome};
use crate::shell::Source;

const PROMPT: &str = "txn> ";

/// What steps are carried out against.
enum Target {
    Txn(Txn),
    View(View),
}

impl Target {
    async fn open(client: &Client, args: &TxnArgs) -> Result<Self, Error> {
        if args.read_only {
            Ok(Self::View(client.view().await?))
        } else {
            Ok(Self::Txn(client.begin(&args.typed_options())))
        }
    }

    async fn step(&self, step: Step) -> Result<Shown, Failure> {
        match self {
            Self::Txn(txn) => Ok(play(txn, step).await?),
            Self::View(_) if step.is_write() => Err(read_only()),
            Self::View(view) => look(view, step).await,
        }
    }

    async fn commit(self, app: &mut App<'_>) -> Outcome {
        match self {
            Self::Txn(txn) => {
                let committed = Box::pin(txn.commit()).await?;
                show::committed(app.out, &committed)?;
            }
            Self::View(view) => close(app, view).await,
        }
        Ok(Done::AsAsked)
    }

    async fn abort(self, app: &mut App<'_>) -> Outcome {
        match self {
            Self::Txn(txn) => {
                txn.abort();
                show::aborted(app.out)?;
            }
            Self::View(view) => close(app, view).await,
        }
        Ok(Done::AsAsked)
    }
}

pub(super) async fn run(app: &mut App<'_>, args: &TxnArgs) -> Outcome {
    let mut source = Source::open(None)?;
    let typed = source.is_terminal();
    if typed {
        app.out.hint(VERBS);
    }
    let target = Target::open(&app.client().await?, args).await?;
    loop {
        let Some(line) = source.next(PROMPT).await? else {
            return end_of_input(app, target, typed).await;
        };
        let step = match parse_line(&line) {
            Ok(Line::Nothing) => continue,
            Ok(Line::Commit) => return target.commit(app).await,
            Ok(Line::Abort) => return target.abort(app).await,
            Ok(Line::Step(step)) => step,
            Err(what) => {
                forgive(app, Failure::Usage(what), typed)?;
                continue;
            }
        };
        match target.step(step).await {
            Ok(shown) => show::step(app.out, &shown)?,
            Err(failure) => forgive(app, failure, typed)?,
        }
    }
}

/// Somebody who types loses nothing by a mistake; what ends the transaction ends the command.
fn forgive(app: &mut App<'_>, failure: Failure, typed: bool) -> Result<(), Failure> {
    let ended = match &failure {
        Failure::Client(error) => {
            ["CONFLICT", "TXN_TOO_OLD", "VIEW_LOST"].contains(&error.reason())
        }
        Failure::Usage(_) => false,
        Failure::Output(_) | Failure::Other(_) | Failure::Said(_) => true,
    };
    if ended || !typed {
        return Err(failure);
    }
    app.out.failure(&failure);
    Ok(())
}

/// Nothing was said about what to do: nothing is done. A program may have been cut off.
async fn end_of_input(app: &mut App<'_>, target: Target, typed: bool) -> Outcome {
    let reading = matches!(target, Target::View(_));
    let aborted = target.abort(app).await;
    if typed || reading {
        return aborted;
    }
    Err(Failure::usage("the lines end without commit or abort"))
}
