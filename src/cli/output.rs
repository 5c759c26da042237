//! Printing: numbers for people, progress, JSON lines.

use std::borrow::Cow;
use std::io::{self, IsTerminal, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressStyle};
use restow::progress::Progress;

use super::Global;

/// A number of bytes with an optional K, M, G or T for powers of 1024.
pub fn parse_size(text: &str) -> Result<u64, String> {
    let wrong = || format!("'{text}' is no size such as 4096, 64K, 1.5M or 2G");
    let unit = text.trim_end_matches(['i', 'B', 'b']);
    let (number, power) = match unit.char_indices().last() {
        Some((at, letter)) if !letter.is_ascii_digit() => {
            let power = "KMGT".find(letter.to_ascii_uppercase()).ok_or_else(wrong)? + 1;
            (&unit[..at], power as i32)
        }
        _ => (unit, 0),
    };
    let number: f64 = number.trim().parse().map_err(|_| wrong())?;
    if !number.is_finite() || number < 0.0 {
        return Err(wrong());
    }
    Ok((number * 1024f64.powi(power)) as u64)
}

/// For callbacks of the library: standard output failed.
pub fn stdout_error(source: io::Error) -> restow::error::Error {
    restow::error::Error::Io { action: "write", path: "standard output".into(), source }
}

/// Writes a line to standard output. Names and texts in it come from repositories and file systems: what
/// a terminal would take for a command is written out.
pub fn line(text: impl std::fmt::Display) -> io::Result<()> {
    writeln!(io::stdout().lock(), "{}", plain(&text.to_string()))
}

/// Tells people something that is no failure.
pub fn warning(text: impl std::fmt::Display) {
    eprintln!("warning: {}", plain(&text.to_string()));
}

/// A text without control characters other than tabs and ends of lines.
pub fn plain(text: &str) -> Cow<'_, str> {
    escaped(text, &['\n', '\t'])
}

fn escaped<'t>(text: &'t str, allowed: &[char]) -> Cow<'t, str> {
    let is_bad = |letter: char| letter.is_control() && !allowed.contains(&letter);
    if !text.contains(is_bad) {
        return Cow::Borrowed(text);
    }
    let mut plain = String::with_capacity(text.len() + 8);
    for letter in text.chars() {
        if is_bad(letter) {
            plain.extend(letter.escape_default());
        } else {
            plain.push(letter);
        }
    }
    Cow::Owned(plain)
}

/// Writes a JSON value as a line to standard output.
pub fn json(value: &impl serde::Serialize) -> io::Result<()> {
    let text = serde_json::to_string(value)?;
    writeln!(io::stdout().lock(), "{text}")
}

/// A size for people: three digits and a unit of 1000.
pub fn bytes(count: u64) -> String {
    let units = ["B", "kB", "MB", "GB", "TB", "PB", "EB"];
    let (mut value, mut unit) = (count as f64, 0);
    while value >= 999.5 && unit + 1 < units.len() {
        value /= 1000.0;
        unit += 1;
    }
    match (unit, value) {
        (0, _) => format!("{count} B"),
        (_, value) if value < 9.95 => format!("{value:.1} {}", units[unit]),
        (_, value) => format!("{value:.0} {}", units[unit]),
    }
}

/// A share for people.
pub fn percent(part: u64, whole: u64) -> String {
    if whole == 0 {
        return "0 %".to_owned();
    }
    let value = part as f64 * 100.0 / whole as f64;
    if value == 0.0 || value >= 9.95 { format!("{value:.0} %") } else { format!("{value:.1} %") }
}

/// Columns of text, aligned; the first row is the heading.
pub fn table(rows: &[Vec<String>]) -> io::Result<()> {
    let plain =
        |row: &Vec<String>| row.iter().map(|cell| escaped(cell, &[]).into_owned()).collect();
    let rows: Vec<Vec<String>> = rows.iter().map(plain).collect();
    let columns = rows.iter().map(Vec::len).max().unwrap_or(0);
    let width = |column: usize| {
        rows.iter()
            .filter_map(|row| row.get(column))
            .map(|cell| cell.chars().count())
            .max()
            .unwrap_or(0)
    };
    let widths: Vec<usize> = (0..columns).map(width).collect();
    for row in &rows {
        let mut text = String::new();
        for (cell, width) in row.iter().zip(&widths) {
            text.push_str(&format!("{cell:<width$}  "));
        }
        line(text.trim_end())?;
    }
    Ok(())
}

/// Shows progress until it is dropped: a bar on a terminal, JSON lines with `--json -v`, else nothing
/// but a line every half minute.
pub struct Display {
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Display {
    /// Starts to show `progress` on standard error.
    pub fn start(global: &Global, progress: &Arc<Progress>) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        if global.quiet {
            return Self { stop, thread: None };
        }
        let (progress, watched) = (progress.clone(), stop.clone());
        let style = match (global.json, io::stderr().is_terminal()) {
            (true, _) if global.verbose > 0 => Style::Json,
            (true, _) => return Self { stop, thread: None },
            (false, true) => Style::Bar(bar()),
            (false, false) => Style::Lines,
        };
        let thread = std::thread::spawn(move || show(&style, &progress, &watched));
        Self { stop, thread: Some(thread) }
    }
}

impl Drop for Display {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::SeqCst);
        if let Some(thread) = self.thread.take() {
            thread.thread().unpark();
            let _ = thread.join();
        }
    }
}

enum Style {
    Bar(ProgressBar),
    Lines,
    Json,
}

fn bar() -> ProgressBar {
    let bar = ProgressBar::no_length();
    if let Ok(style) = ProgressStyle::with_template("{elapsed_precise}  {wide_msg}") {
        bar.set_style(style);
    }
    bar
}

fn show(style: &Style, progress: &Progress, stop: &AtomicBool) {
    let started = Instant::now();
    let pause = match style {
        Style::Bar(_) => Duration::from_millis(200),
        Style::Json => Duration::from_secs(1),
        Style::Lines => Duration::from_secs(30),
    };
    loop {
        std::thread::park_timeout(pause);
        if stop.load(Ordering::SeqCst) {
            break;
        }
        let numbers = Numbers::read(progress, started.elapsed());
        match style {
            Style::Bar(bar) => bar.set_message(numbers.text()),
            Style::Lines => eprintln!("{}", numbers.text()),
            Style::Json => eprintln!("{}", numbers.json()),
        }
    }
    if let Style::Bar(bar) = style {
        bar.finish_and_clear();
    }
}

/// Streams or tables that are named in one line.
const MAX_PARTS: usize = 4;

/// The counters at one moment.
struct Numbers {
    done: u64,
    total: u64,
    dedup: u64,
    delta: u64,
    new: u64,
    stored: u64,
    parts_done: u64,
    parts_total: u64,
    /// Streams or tables at work, with their bytes.
    parts: Vec<(String, u64)>,
    seconds: f64,
}

impl Numbers {
    fn read(progress: &Progress, elapsed: Duration) -> Self {
        Self {
            done: progress.done_bytes.load(Ordering::Relaxed),
            total: progress.total_bytes.load(Ordering::Relaxed),
            dedup: progress.dedup_bytes.load(Ordering::Relaxed),
            delta: progress.delta_bytes.load(Ordering::Relaxed),
            new: progress.new_bytes.load(Ordering::Relaxed),
            stored: progress.stored_bytes.load(Ordering::Relaxed),
            parts_done: progress.done_parts.load(Ordering::Relaxed),
            parts_total: progress.total_parts.load(Ordering::Relaxed),
            parts: progress.parts(),
            seconds: elapsed.as_secs_f64().max(0.001),
        }
    }

    fn rate(&self) -> f64 {
        self.done as f64 / self.seconds
    }

    /// Seconds left, where the total is known.
    fn left(&self) -> Option<f64> {
        (self.total > self.done && self.done > 0)
            .then(|| (self.total - self.done) as f64 / self.rate())
    }

    fn text(&self) -> String {
        let mut text = bytes(self.done);
        if self.total > 0 {
            text.push_str(&format!(
                " of {} ({})",
                bytes(self.total),
                percent(self.done, self.total)
            ));
        }
        text.push_str(&format!("  {}/s", bytes(self.rate() as u64)));
        if let Some(left) = self.left() {
            text.push_str(&format!("  {} left", seconds(left)));
        }
        if self.dedup + self.delta + self.new > 0 {
            text.push_str(&format!(
                "  unchanged {}  delta {}  new {}  stored {}",
                bytes(self.dedup),
                bytes(self.delta),
                bytes(self.new),
                bytes(self.stored)
            ));
        }
        if self.parts_total > 1 {
            text.push_str(&format!("  {} of {}", self.parts_done, self.parts_total));
            for (name, count) in self.parts.iter().take(MAX_PARTS) {
                let name = name.rsplit('/').next().unwrap_or(name);
                text.push_str(&format!("  {} {}", escaped(name, &[]), bytes(*count)));
            }
        }
        text
    }

    fn json(&self) -> serde_json::Value {
        serde_json::json!({
            "message_type": "status", "seconds_elapsed": self.seconds, "seconds_left": self.left(),
            "bytes_done": self.done, "bytes_total": self.total, "bytes_dedup": self.dedup,
            "bytes_delta": self.delta, "bytes_new": self.new, "bytes_stored": self.stored,
            "parts_done": self.parts_done, "parts_total": self.parts_total,
            "parts": self.parts.iter().map(|(name, bytes)| {
                serde_json::json!({ "name": name, "bytes": bytes })
            }).collect::<Vec<_>>(),
        })
    }
}

/// A duration for people.
pub fn seconds(value: f64) -> String {
    match value {
        value if value < 9.95 => format!("{value:.1} s"),
        value if value < 99.5 => format!("{value:.0} s"),
        value => format!("{} min {} s", value as u64 / 60, value as u64 % 60),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn control_characters_are_written_out() {
        assert!(matches!(plain("a\tb\nc ä"), Cow::Borrowed("a\tb\nc ä")));
        assert_eq!(plain("\u{1b}[2Jx\r\u{7f}\u{9b}"), "\\u{1b}[2Jx\\r\\u{7f}\\u{9b}");
        assert_eq!(escaped("a\nb\tc", &[]), "a\\nb\\tc");
    }

    #[test]
    fn sizes_read_well() {
        for (count, text) in [(0, "0 B"), (999, "999 B"), (1000, "1.0 kB"), (742_000_000, "742 MB")]
        {
            assert_eq!(bytes(count), text);
        }
        assert_eq!(bytes(999_999), "1.0 MB");
        assert_eq!(percent(1, 0), "0 %");
        assert_eq!(percent(96, 1000), "9.6 %");
    }
}
