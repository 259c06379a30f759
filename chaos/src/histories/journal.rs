//! Two lines per operation, as Jepsen writes them: what was asked, and what came of it.
//!
//! Lines stand in the order of time and are numbered. A process that has not heard what became of its operation is dead: its
//! worker goes on under a number that is greater by the number of workers, so that no two ever share one.

use std::collections::BTreeMap;
use std::io::{self, Write};

use super::BadHistory;
use super::edn::Edn;
use crate::serial::Status;

/// One operation, from asking to answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// Who asked.
    pub process: u64,
    /// When.
    pub invoke_ns: u64,
    /// When it was answered or given up; `None` when it never was.
    pub complete_ns: Option<u64>,
    /// How it ended.
    pub status: Status,
    /// The line it was read from, of the asking; 0 when it was not.
    pub line: usize,
    /// The name of the function: `txn`, `transfer`, `read`, `add`.
    pub function: String,
    /// What was asked.
    pub asked: Edn,
    /// What was answered: the same, with what was read.
    pub answered: Edn,
}

/// Numbers of processes, handed out to workers.
#[derive(Clone, Copy, Debug)]
pub struct Process {
    number: u64,
    workers: u64,
}

impl Process {
    /// The first process of a worker, numbered from 0.
    pub const fn first(worker: u64, workers: u64) -> Self {
        Self {
            number: worker,
            workers,
        }
    }

    /// Its number.
    pub const fn number(self) -> u64 {
        self.number
    }

    /// The process under which the worker goes on after such an end.
    #[must_use]
    pub const fn after(self, status: Status) -> Self {
        match status {
            Status::Ok | Status::Fail => self,
            Status::Info => Self {
                number: self.number + self.workers,
                workers: self.workers,
            },
        }
    }
}

const fn type_name(status: Status) -> &'static str {
    match status {
        Status::Ok => "ok",
        Status::Fail => "fail",
        Status::Info => "info",
    }
}

/// Writes entries as lines.
pub fn write(entries: &[Entry], out: &mut dyn Write) -> io::Result<()> {
    let mut sorted: Vec<&Entry> = entries.iter().collect();
    sorted.sort_by_key(|entry| (entry.invoke_ns, entry.complete_ns, entry.process));
    let mut lines: Vec<(u64, u8, (&Entry, bool))> = Vec::new();
    for entry in sorted {
        lines.push((entry.invoke_ns, 1, (entry, true)));
        if let Some(time) = entry.complete_ns {
            // At one time answers stand before questions, but for an answer in the moment of its own question.
            let rank = u8::from(time == entry.invoke_ns);
            lines.push((time, rank, (entry, false)));
        }
    }
    lines.sort_by_key(|(time, rank, _)| (*time, *rank));
    for (index, (time, _, (entry, is_invoke))) in (0..).zip(lines) {
        writeln!(out, "{}", line(entry, is_invoke, (time, index)))?;
    }
    out.flush()
}

fn line(entry: &Entry, is_invoke: bool, (time, index): (u64, u64)) -> Edn {
    let (kind, value) = match (is_invoke, entry.status) {
        (true, _) => ("invoke", &entry.asked),
        (false, Status::Ok) => ("ok", &entry.answered),
        (false, status) => (type_name(status), &entry.asked),
    };
    let field = |name: &str, value: Edn| (Edn::keyword(name), value);
    Edn::Map(vec![
        field("type", Edn::keyword(kind)),
        field("f", Edn::keyword(&entry.function)),
        field("value", value.clone()),
        field("process", Edn::int(entry.process)),
        field("time", Edn::int(time)),
        field("index", Edn::int(index)),
    ])
}

/// Reads entries from lines. What a process began and never ended is of unknown outcome. Lines of others than numbered
/// processes (Jepsen's nemesis) are passed over.
pub fn read(text: &str) -> Result<Vec<Entry>, BadHistory> {
    let mut open: BTreeMap<u64, usize> = BTreeMap::new();
    let mut entries: Vec<Entry> = Vec::new();
    for (number, line) in (1..).zip(text.lines()) {
        if line.trim().is_empty() {
            continue;
        }
        let bad = |why: &str| BadHistory::at(number, why);
        let map = Edn::parse(line).map_err(|why| BadHistory::at(number, why))?;
        let Some(process) = map
            .get("process")
            .ok_or_else(|| bad("no :process"))?
            .number()
        else {
            continue;
        };
        let kind = map
            .get("type")
            .and_then(Edn::name)
            .ok_or_else(|| bad("no :type"))?;
        let time = map
            .get("time")
            .and_then(Edn::number)
            .ok_or_else(|| bad("no :time"))?;
        let value = map.get("value").cloned().unwrap_or(Edn::Nil);
        if kind == "invoke" {
            let function = map
                .get("f")
                .and_then(Edn::name)
                .ok_or_else(|| bad("no :f"))?;
            if open.insert(process, entries.len()).is_some() {
                return Err(bad("the process has not ended what it began before"));
            }
            entries.push(Entry {
                line: number,
                ..begun(process, time, (function, value))
            });
            continue;
        }
        let place = open.remove(&process);
        let entry = place.and_then(|place| entries.get_mut(place));
        let entry = entry.ok_or_else(|| bad("the process has begun nothing"))?;
        entry.status = status(kind).ok_or_else(|| bad("a :type of another name"))?;
        entry.complete_ns = Some(time);
        entry.answered = value;
        if time < entry.invoke_ns {
            return Err(bad("it ended before it began"));
        }
    }
    Ok(entries)
}

fn begun(process: u64, time: u64, (function, value): (&str, Edn)) -> Entry {
    Entry {
        process,
        invoke_ns: time,
        complete_ns: None,
        status: Status::Info,
        line: 0,
        function: function.to_owned(),
        asked: value.clone(),
        answered: value,
    }
}

fn status(kind: &str) -> Option<Status> {
    [Status::Ok, Status::Fail, Status::Info]
        .into_iter()
        .find(|status| type_name(*status) == kind)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(process: u64, times: (u64, Option<u64>), status: Status) -> Entry {
        Entry {
            process,
            invoke_ns: times.0,
            complete_ns: times.1,
            status,
            line: 0,
            function: "read".to_owned(),
            asked: Edn::Nil,
            answered: Edn::Int(1),
        }
    }

    fn written(entries: &[Entry]) -> String {
        let mut out = Vec::new();
        write(entries, &mut out).unwrap();
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn lines_stand_in_the_order_of_time_and_are_numbered() {
        let entries = [
            entry(0, (5, Some(9)), Status::Ok),
            entry(1, (6, Some(7)), Status::Fail),
            entry(2, (8, None), Status::Info),
        ];
        let expected = [
            "{:type :invoke, :f :read, :value nil, :process 0, :time 5, :index 0}",
            "{:type :invoke, :f :read, :value nil, :process 1, :time 6, :index 1}",
            "{:type :fail, :f :read, :value nil, :process 1, :time 7, :index 2}",
            "{:type :invoke, :f :read, :value nil, :process 2, :time 8, :index 3}",
            "{:type :ok, :f :read, :value 1, :process 0, :time 9, :index 4}",
        ];
        assert_eq!(written(&entries).lines().collect::<Vec<_>>(), expected);
    }

    #[test]
    fn what_was_written_is_read() {
        let mut entries = vec![
            entry(0, (5, Some(5)), Status::Ok),
            entry(0, (5, Some(9)), Status::Ok),
            entry(1, (6, None), Status::Info),
        ];
        entries[2].answered = Edn::Nil;
        let read = read(&written(&entries)).unwrap();
        let read: Vec<Entry> = read
            .into_iter()
            .map(|entry| Entry { line: 0, ..entry })
            .collect();
        assert_eq!(read, entries);
    }

    #[test]
    fn a_line_that_fits_no_history_is_named() {
        let ok = "{:type :ok, :f :read, :value 1, :process 0, :time 9, :index 0}";
        assert_eq!(read(ok).unwrap_err().line, 1);
        let invoke = "{:type :invoke, :f :read, :value nil, :process 0, :time 10, :index 0}";
        assert_eq!(read(&format!("{invoke}\n{invoke}")).unwrap_err().line, 2);
        assert_eq!(
            read(&format!("{invoke}\n{ok}")).unwrap_err().why,
            "it ended before it began"
        );
        assert_eq!(read("\n{:type").unwrap_err().line, 2);
    }

    #[test]
    fn a_worker_whose_process_died_goes_on_under_a_number_nobody_else_has() {
        let process = Process::first(1, 4);
        assert_eq!(process.after(Status::Ok).number(), 1);
        assert_eq!(process.after(Status::Info).after(Status::Info).number(), 9);
    }
}
