//! Lines of a file or of standard input, with their place, and a bound on their length.

use std::io;

use tokio::io::{AsyncBufRead, AsyncBufReadExt as _};

/// Longest line: a value of 1 MiB whose every byte is escaped as `\u00xx`, and its key.
const LINE_BYTES_MAX: usize = 8 << 20;

/// One line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Line {
    /// 1 for the first.
    pub(super) number: u64,
    /// Where it begins.
    pub(super) start: u64,
    /// Without its line break. `None` when it is too long.
    pub(super) text: Option<Vec<u8>>,
}

/// Reads lines. Dropping a call of [`Lines::next`] before it is done loses nothing.
pub(super) struct Lines<R> {
    reader: R,
    /// Of the line begun.
    number: u64,
    start: u64,
    text: Vec<u8>,
    too_long: bool,
    /// Behind what was taken from the reader.
    offset: u64,
}

impl<R: AsyncBufRead + Unpin> Lines<R> {
    /// `reader` stands at byte `offset`, where line `number` begins.
    pub(super) fn new(reader: R, number: u64, offset: u64) -> Self {
        Self {
            reader,
            number,
            start: offset,
            text: Vec::new(),
            too_long: false,
            offset,
        }
    }

    /// The number of the next line, and where it begins.
    pub(super) fn position(&self) -> (u64, u64) {
        (self.number, self.start)
    }

    pub(super) async fn next(&mut self) -> io::Result<Option<Line>> {
        loop {
            let available = self.reader.fill_buf().await?;
            if available.is_empty() {
                let begun = self.offset > self.start;
                return Ok(begun.then(|| self.finish()));
            }
            let line_break = available.iter().position(|byte| *byte == b'\n');
            let part = available.get(..line_break.unwrap_or(available.len()));
            let part = part.unwrap_or_default();
            self.too_long |= self.text.len() + part.len() > LINE_BYTES_MAX;
            if !self.too_long {
                self.text.extend_from_slice(part);
            }
            let taken = part.len() + usize::from(line_break.is_some());
            self.reader.consume(taken);
            self.offset += u64::try_from(taken).unwrap_or(0);
            if line_break.is_some() {
                return Ok(Some(self.finish()));
            }
        }
    }

    fn finish(&mut self) -> Line {
        let mut text = std::mem::take(&mut self.text);
        if text.last() == Some(&b'\r') {
            text.pop();
        }
        let line = Line {
            number: self.number,
            start: self.start,
            text: (!self.too_long).then_some(text),
        };
        self.number += 1;
        self.start = self.offset;
        self.too_long = false;
        line
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn all(text: &[u8]) -> Vec<Line> {
        let reader = tokio::io::BufReader::with_capacity(3, text);
        let mut lines = Lines::new(reader, 1, 0);
        let mut found = Vec::new();
        while let Some(line) = lines.next().await.unwrap() {
            found.push(line);
        }
        found
    }

    #[tokio::test]
    async fn lines_come_with_their_places_and_without_their_breaks() {
        let found = all(b"one\r\n\nthree and no break").await;
        let texts: Vec<_> = found
            .iter()
            .map(|line| line.text.clone().unwrap())
            .collect();
        assert_eq!(texts, [&b"one"[..], b"", b"three and no break"]);
        let places: Vec<_> = found.iter().map(|line| (line.number, line.start)).collect();
        assert_eq!(places, [(1, 0), (2, 5), (3, 6)]);
        assert!(all(b"").await.is_empty());
    }

    #[tokio::test]
    async fn a_line_too_long_is_told_and_skipped() {
        let mut text = vec![b'x'; LINE_BYTES_MAX + 1];
        text.extend_from_slice(b"\nnext\n");
        let reader = tokio::io::BufReader::new(text.as_slice());
        let mut lines = Lines::new(reader, 1, 0);
        assert_eq!(lines.next().await.unwrap().unwrap().text, None);
        let next = lines.next().await.unwrap().unwrap();
        assert_eq!(next.text.as_deref(), Some(&b"next"[..]));
    }
}
