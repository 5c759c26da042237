use anyhow::Result;
use clap::{Args, Subcommand, ValueEnum};
use restow::drill::{Drill, Found, Report, Signed, list, run as hold, store};
use restow::error::Error;
use restow::repository::Repository;
use restow::repository::snapshots::Filter;
use restow::settings::{DrillConfig, DrillLevel, Settings};

use crate::cli::exit::DRILL_FAILED;
use crate::cli::{Global, interrupt, open, output, sources};

/// Prove that a source restores, and keep the report
#[derive(Args)]
#[command(
    after_help = "Exit codes: 0 the drill passed, 4 it did not; its report says why. Any other: it could \
                        not be held."
)]
pub struct DrillArgs {
    #[command(subcommand)]
    action: Action,
}

#[derive(Subcommand)]
enum Action {
    /// Hold a drill: read a snapshot back, or restore it into a server made for it, and look at it there
    Run(RunArgs),
    /// List the reports of drills that are kept in the repository
    List {
        /// Only those of this drill
        drill: Option<String>,
    },
}

#[derive(Args)]
struct RunArgs {
    /// Its name in the configuration file, or the name of a source
    name: String,
    /// How far it goes [default: as configured, else restore]
    #[arg(long, value_enum)]
    level: Option<Level>,
    /// The snapshot to prove
    #[arg(long, value_name = "SNAPSHOT", default_value = "latest")]
    snapshot: String,
    /// Keep no report in the repository
    #[arg(long)]
    no_report: bool,
}

#[derive(Clone, Copy, ValueEnum)]
enum Level {
    /// Read everything back and verify it
    Read,
    /// Restore it into a scratch server
    Restore,
}

/// Runs or lists.
pub fn run(global: &Global, args: DrillArgs) -> Result<u8> {
    match args.action {
        Action::Run(args) => run_one(global, args),
        Action::List { drill } => list_all(global, drill.as_deref()),
    }
}

/// A drill by its name, or of a source as it comes.
fn config(settings: Option<&Settings>, name: &str) -> Result<DrillConfig> {
    let of_source = DrillConfig { source: name.to_owned(), jobs: 2, ..DrillConfig::default() };
    let Some(settings) = settings else { return Ok(of_source) };
    let is_source = settings.sources.contains_key(name) || name.contains(':');
    if !settings.drills.contains_key(name) && is_source {
        return Ok(of_source);
    }
    Ok(settings.drill(name)?.clone())
}

fn run_one(global: &Global, args: RunArgs) -> Result<u8> {
    let settings = global.settings()?;
    let name = sources::name_in_snapshots(&args.name)?;
    let mut config = config(settings.as_ref(), &name)?;
    match args.level {
        Some(Level::Read) => config.level = DrillLevel::Read,
        Some(Level::Restore) => config.level = DrillLevel::Restore,
        None => {}
    }
    let is_configured = settings.as_ref().is_some_and(|it| it.sources.contains_key(&config.source));
    let global = if is_configured { global.source(&config.source)?.2 } else { global.clone() };
    let repository = global.open()?;
    let filter = Filter { source: Some(config.source.clone()), ..Filter::default() };
    let snapshot = repository.find_snapshot(&args.snapshot, &filter)?;
    let (surroundings, progress) = (sources::surroundings(), interrupt::progress());
    let drill = Drill {
        name: &name,
        config: &config,
        repository: &repository,
        snapshot: &snapshot,
        surroundings: &surroundings,
        progress: &progress,
    };
    let shown = output::Display::start(&global, &progress);
    let report = hold(&drill);
    drop(shown);
    let report = report?;
    print(&global, &report)?;
    if !args.no_report {
        store(&repository, &report, open::host(), open::user())?;
    }
    Ok(if report.failure.is_none() { 0 } else { DRILL_FAILED })
}

fn print(global: &Global, report: &Report) -> Result<()> {
    if global.json {
        let mut value = serde_json::to_value(report)?;
        value["message_type"] = "drill".into();
        output::json(&value)?;
        return Ok(());
    }
    if let Some(failure) = &report.failure {
        eprintln!(
            "restow: drill {} failed ({}): {}",
            report.drill,
            failure.kind.name(),
            failure.detail
        );
    }
    if global.quiet {
        return Ok(());
    }
    let id = &report.snapshot[..8.min(report.snapshot.len())];
    output::line(format!("drill {} of {}, snapshot {id}", report.drill, report.source))?;
    for phase in &report.phases {
        output::line(format!("  {:8} {}", phase.name, output::seconds(phase.seconds)))?;
    }
    let target = report.rto_target_seconds;
    let target =
        target.map_or(String::new(), |it| format!(" (target {})", output::seconds(it as f64)));
    output::line(format!("  RTO      {}{target}", output::seconds(report.rto_seconds)))?;
    for check in &report.checks {
        output::line(format!("  ok       {}: {}", check.what, check.detail))?;
    }
    output::line(if report.failure.is_none() { "passed" } else { "did not pass" })?;
    Ok(())
}

fn list_all(global: &Global, drill: Option<&str>) -> Result<u8> {
    let repository: Repository = global.open_read_only()?;
    let found = list(&repository, drill)?;
    if global.json {
        for Found { snapshot, report, signed } in &found {
            output::json(&serde_json::json!({
                "message_type": "drill_report", "id": snapshot.name, "signed": signed, "report": report,
            }))?;
        }
        return Ok(0);
    }
    if found.is_empty() && drill.is_some() {
        let text = "there is no report of this drill; 'restow drill list' lists all";
        return Err(Error::Usage(text.into()).into());
    }
    let head = ["Time", "Drill", "Source", "Snapshot", "RTO", "Outcome", "Signed"];
    let mut rows = vec![head.map(str::to_owned).to_vec()];
    for Found { snapshot, report, signed } in &found {
        let time = snapshot.snapshot.time.strftime("%Y-%m-%d %H:%M:%S").to_string();
        let signed = if *signed == Signed::Good { "yes" } else { "NO" }.to_owned();
        let Some(report) = report else {
            let unknown = String::new;
            rows.push(vec![time, unknown(), unknown(), unknown(), unknown(), "?".into(), signed]);
            continue;
        };
        let outcome = report.failure.as_ref().map_or("passed", |failure| failure.kind.name());
        rows.push(vec![
            time,
            report.drill.clone(),
            report.source.clone(),
            report.snapshot.chars().take(8).collect(),
            output::seconds(report.rto_seconds),
            outcome.to_owned(),
            signed,
        ]);
    }
    output::table(&rows)?;
    Ok(0)
}
