//! `import` and `export`: records between a keyspace and a file.

mod export;
mod import;
mod lines;
mod records;
mod resume;

pub(crate) use export::run as export;
pub(crate) use import::run as import;

use std::path::Path;

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

use crate::args::Format;
use crate::out::Out;

/// The form asked for, or the one that the file's name tells.
fn format_of(wanted: Option<Format>, file: &Path) -> Format {
    let extension = file.extension().and_then(|extension| extension.to_str());
    match (wanted, extension) {
        (Some(format), _) => format,
        (None, Some("tsv")) => Format::Tsv,
        (None, _) => Format::Jsonl,
    }
}

/// A bar when the size is known, a counter otherwise; hidden where nobody looks.
fn progress_bar(out: &Out, bytes: Option<u64>) -> ProgressBar {
    let (bar, template) = match bytes {
        Some(bytes) => (
            ProgressBar::new(bytes),
            "{bar:40} {percent}% {msg} {binary_bytes_per_sec} {eta}",
        ),
        None => (ProgressBar::no_length(), "{spinner} {msg}"),
    };
    if !out.progress {
        bar.set_draw_target(ProgressDrawTarget::hidden());
    }
    if let Ok(style) = ProgressStyle::with_template(template) {
        bar.set_style(style);
    }
    bar
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_name_tells_the_form_unless_it_is_given() {
        assert_eq!(format_of(None, Path::new("a.tsv")), Format::Tsv);
        assert_eq!(format_of(None, Path::new("a.jsonl")), Format::Jsonl);
        assert_eq!(format_of(None, Path::new("-")), Format::Jsonl);
        assert_eq!(
            format_of(Some(Format::Jsonl), Path::new("a.tsv")),
            Format::Jsonl
        );
    }
}
