//! `restow check`.

use anyhow::Result;
use clap::Args;
use restow::check::{CheckReport, ReadData, run as check};

use super::repair;
use crate::cli::{Global, interrupt, output};

/// Look for damage
///
/// Without options: the log, the idx objects, the presence and size of packs, and whether every
/// chunk of every snapshot, and every base of every delta, stands somewhere.
#[derive(Args)]
pub struct CheckArgs {
    /// Also read all packs, decode every chunk and verify it
    #[arg(long, conflicts_with = "read_data_subset")]
    read_data: bool,
    /// Also read a part of the packs: `5%` at random, or `2/7` for the second of seven parts
    #[arg(long, value_name = "SUBSET", value_parser = parse_subset)]
    read_data_subset: Option<ReadData>,
    /// First read all packs and mend those that rotted from their parity (see `init --parity`)
    #[arg(long)]
    repair: bool,
}

/// Checks, prints every problem, exits 1 where there is one.
pub fn run(global: &Global, args: CheckArgs) -> Result<u8> {
    if args.repair {
        repair::mend(global, false)?;
    }
    let repository = global.open_uncached()?;
    let read = match args.read_data_subset {
        Some(subset) => subset,
        None if args.read_data => ReadData::All,
        None => ReadData::None,
    };
    let progress = interrupt::progress();
    let display = output::Display::start(global, &progress);
    let report = check(&repository, read, &progress);
    drop(display);
    let report = report?;
    if global.json {
        output::json(&report)?;
    } else {
        print(global, &report)?;
    }
    Ok(u8::from(!report.problems.is_empty()))
}

fn print(global: &Global, report: &CheckReport) -> Result<()> {
    for problem in &report.problems {
        output::line(format!("damaged: {}: {}", problem.object, problem.detail))?;
        for affected in &problem.affected {
            output::line(format!("    affects {} {}", affected.snapshot, affected.path))?;
        }
    }
    if !global.quiet {
        let read = match report.packs_read {
            0 => "not read".to_owned(),
            packs => format!("{packs} of them read ({})", output::bytes(report.bytes_read)),
        };
        output::line(format!("{} snapshots, {} packs, {read}", report.snapshots, report.packs))?;
        if report.orphans > 0 {
            output::line(format!(
                "{} objects ({}) that nothing refers to: left by interrupted backups",
                report.orphans,
                output::bytes(report.orphan_bytes)
            ))?;
        }
    }
    match report.problems.len() {
        0 if !global.quiet => output::line("no problems found")?,
        0 => {}
        count => eprintln!("restow: {count} damaged objects"),
    }
    if !global.quiet {
        report.advice().iter().for_each(|advice| eprintln!("hint: {advice}"));
    }
    Ok(())
}

fn parse_subset(text: &str) -> Result<ReadData, String> {
    let wrong = || format!("'{text}' is neither a share such as 5% nor a part such as 2/7");
    if let Some(number) = text.strip_suffix('%') {
        let share: f64 = number.trim().parse().map_err(|_| wrong())?;
        if share > 0.0 && share <= 100.0 {
            return Ok(ReadData::Share(share / 100.0));
        }
        return Err(wrong());
    }
    let (part, parts) = text.split_once('/').ok_or_else(wrong)?;
    let part: u64 = part.trim().parse().map_err(|_| wrong())?;
    let parts: u64 = parts.trim().parse().map_err(|_| wrong())?;
    if part >= 1 && part <= parts && parts <= 256 {
        return Ok(ReadData::Part { part, parts });
    }
    Err(wrong())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn subsets_parse() {
        assert_eq!(parse_subset("5%"), Ok(ReadData::Share(0.05)));
        assert_eq!(parse_subset("2/7"), Ok(ReadData::Part { part: 2, parts: 7 }));
        for bad in ["", "0%", "101%", "8/7", "0/7", "x/y", "5"] {
            assert!(parse_subset(bad).is_err(), "{bad}");
        }
    }
}
