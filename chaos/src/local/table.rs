//! How measurements are told: tables that can be pasted into a page.
#![expect(
    clippy::print_stdout,
    reason = "a command line tool reports on standard output"
)]

use std::time::Duration;

/// Prints a table, and a line of nothing.
pub(super) fn print<const N: usize>(head: [&str; N], rows: &[[String; N]]) {
    println!("| {} |", head.join(" | "));
    println!("|{}", "---|".repeat(N));
    for row in rows {
        println!("| {} |", row.join(" | "));
    }
    println!();
}

/// Milliseconds, with a digit where that says something.
pub(super) fn ms(time: Duration) -> String {
    let ms = time.as_secs_f64() * 1000.0;
    if ms < 10.0 {
        format!("{ms:.1} ms")
    } else {
        format!("{ms:.0} ms")
    }
}

/// The middle and the worst of some times.
pub(super) fn median_and_most(mut times: Vec<Duration>) -> String {
    times.sort();
    match (times.get(times.len() / 2), times.last()) {
        (Some(median), Some(most)) => format!("{} ({})", ms(*median), ms(*most)),
        (_, _) => "none".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_told_by_their_middle_and_their_worst() {
        let times = [3, 1, 250].map(Duration::from_millis).to_vec();
        assert_eq!(median_and_most(times), "3.0 ms (250 ms)");
        assert_eq!(median_and_most(Vec::new()), "none");
    }
}
