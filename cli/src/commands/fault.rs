//! `fault`: told to every node directly, so that healing works while zones are cut off from each other.

use meridian_client::proto::admin::v1 as wire;
use meridian_client::{Admin, Effect, Error, ErrorKind, NodeAdmin};

use crate::app::App;
use crate::args::{FaultCommand, PairArgs};
use crate::exit::{Done, Failure, Outcome};
use crate::{human, json};

type Answers = Vec<(NodeAdmin, Result<(), Error>)>;

pub(crate) async fn run(app: &mut App<'_>, command: FaultCommand) -> Outcome {
    let admin = app.client().await?.admin();
    let answers = match command {
        FaultCommand::Block { pair, one_way } => {
            check(&admin, &pair)?;
            let (from, to) = (pair.a, pair.b);
            let request = wire::FaultBlockRequest { from, to, one_way };
            told(&admin, |node| {
                let request = request.clone();
                async move { node.fault_block(request).await }
            })
            .await
        }
        FaultCommand::Heal { a, b } => {
            if let (Some(a), Some(b)) = (&a, &b) {
                let (a, b) = (a.clone(), b.clone());
                check(&admin, &PairArgs { a, b })?;
            }
            let request = wire::FaultHealRequest {
                from: a.unwrap_or_default(),
                to: b.unwrap_or_default(),
            };
            told(&admin, |node| {
                let request = request.clone();
                async move { node.fault_heal(request).await }
            })
            .await
        }
        FaultCommand::Delay {
            pair,
            delay,
            one_way,
        } => {
            check(&admin, &pair)?;
            let request = wire::FaultDelayRequest {
                from: pair.a,
                to: pair.b,
                delay_ms: json::millis(delay),
                one_way,
            };
            told(&admin, |node| {
                let request = request.clone();
                async move { node.fault_delay(request).await }
            })
            .await
        }
        FaultCommand::Loss {
            pair,
            probability,
            one_way,
        } => {
            check(&admin, &pair)?;
            let request = wire::FaultLossRequest {
                from: pair.a,
                to: pair.b,
                probability,
                one_way,
            };
            told(&admin, |node| {
                let request = request.clone();
                async move { node.fault_loss(request).await }
            })
            .await
        }
        FaultCommand::List => return list(app, &admin).await,
    };
    report(app, &answers)
}

async fn told<T, F>(admin: &Admin, call: impl Fn(NodeAdmin) -> F) -> Answers
where
    F: Future<Output = Result<T, Error>>,
{
    let answers = admin.each_node(call).await.into_iter();
    answers
        .map(|(node, answer)| (node, answer.map(drop)))
        .collect()
}

fn check(admin: &Admin, pair: &PairArgs) -> Result<(), Failure> {
    let nodes = admin.nodes();
    for zone in [&pair.a, &pair.b] {
        if !nodes.iter().any(|node| node.zone == *zone) {
            return Err(Failure::usage(format!("no zone {zone:?}")));
        }
    }
    if pair.a == pair.b {
        return Err(Failure::usage("two different zones are needed"));
    }
    Ok(())
}

/// Nodes that are down are named, and need not be told: they keep no faults over a restart. A refusal fails the
/// command, and so does nobody's answer.
fn report(app: &mut App<'_>, answers: &Answers) -> Outcome {
    let mut told = 0;
    for (node, answer) in answers {
        match answer {
            Ok(()) => told += 1,
            Err(error) if is_down(error) => {
                app.out.hint(&format!(
                    "note: {} was not told: {}",
                    node.node,
                    error.message()
                ));
            }
            Err(error) => return Err(error.clone().into()),
        }
    }
    if told == 0 {
        return Err(Failure::incomplete());
    }
    app.out.hint(&format!("ok, {told} nodes told"));
    Ok(Done::AsAsked)
}

fn is_down(error: &Error) -> bool {
    error.kind() == ErrorKind::Unavailable && error.effect() == Effect::None
}

async fn list(app: &mut App<'_>, admin: &Admin) -> Outcome {
    let answers = admin
        .each_node(|node| async move { node.fault_list(wire::FaultListRequest {}).await })
        .await;
    let mut faults: Vec<wire::Fault> = Vec::new();
    let mut refused = None;
    let mut answered = false;
    for (_, answer) in answers {
        match answer {
            Ok(listed) => {
                answered = true;
                for fault in listed.faults {
                    let active = fault.blocked || fault.delay_ms > 0 || fault.loss > 0.0;
                    if active && !faults.contains(&fault) {
                        faults.push(fault);
                    }
                }
            }
            Err(error) => refused = Some(error),
        }
    }
    if let (false, Some(error)) = (answered, refused) {
        return Err(error.into());
    }
    faults.sort_by(|a, b| (&a.from, &a.to).cmp(&(&b.from, &b.to)));
    show(app, &faults)?;
    Ok(Done::AsAsked)
}

fn show(app: &mut App<'_>, faults: &[wire::Fault]) -> std::io::Result<()> {
    if app.out.json {
        for fault in faults {
            app.out.object(&json::fault(fault))?;
        }
        return Ok(());
    }
    let rows: Vec<_> = faults
        .iter()
        .map(|fault| {
            let blocked = if fault.blocked { "blocked" } else { "" };
            [
                fault.from.clone(),
                fault.to.clone(),
                blocked.to_owned(),
                format!("{} ms", fault.delay_ms),
                format!("{}", fault.loss),
            ]
        })
        .collect();
    let head = ["from", "to", "link", "delay", "loss"];
    app.out.line(&human::table(head, &rows))
}
