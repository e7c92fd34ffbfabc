//! `ichd train --matrix`: the runs of a list one after the other, into one comparison.

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::job::{Ended, Job, backbone};
use super::start::{Start, StartWish};
use super::{Args, Screen, overridden};
use crate::cli::say;
use crate::config::Config;
use crate::device::Chosen;
use crate::disk::{Disk, RealDisk};
use crate::error::{Exit, Fatal};
use crate::measure::report::{By, ModelRow, Page, comparison_table};
use crate::trainer::dataset::Dataset;
use crate::trainer::matrix::{Cell, cells};

/// What a finished run leaves in its folder, so that it is not run again.
const DONE_FILE: &str = "done.json";

/// A finished run.
#[derive(Debug, Serialize, Deserialize)]
struct Done {
    /// Settings, data and start.
    digest: String,
    /// Name and version.
    model: String,
    /// Its line of the comparison.
    row: ModelRow,
}

/// The runs of a list.
pub struct Matrix {
    folder: PathBuf,
    jobs: Vec<(Cell, Job)>,
    /// Whether nothing is trained, and the runs that were begun become models as they are.
    finish: bool,
}

impl Matrix {
    /// Reads the list and looks at the weights that its runs begin with, so that nothing is found missing days later.
    ///
    /// # Errors
    /// The list, or the first run that cannot begin.
    pub fn new(config: &Config, args: &Args, file: &Path) -> Result<Matrix, Fatal> {
        let at = |sentence: String| Fatal::config(format!("{}: {sentence}", file.display()));
        let text = std::fs::read_to_string(file).map_err(|error| at(error.to_string()))?;
        let stem = file.file_stem().unwrap_or_default();
        let folder = args.run.clone().unwrap_or_else(|| config.train.runs_path.join(stem));
        let mut jobs = Vec::new();
        for cell in cells(&text, &config.train).map_err(at)? {
            let setting = overridden(cell.setting.clone(), args)?;
            let spec = backbone(&cell.backbone).map_err(at)?;
            let wish = StartWish {
                from: cell.from.as_deref(),
                side: args.side.or(cell.side),
                windows: cell.windows.as_deref(),
                seed: setting.seed,
            };
            let start = Start::new(config, &config.model.path, spec, &wish)
                .map_err(|error| at(format!("{}: {error}", cell.name)))?;
            let (name, folder) = (cell.name.clone(), folder.join(&cell.name));
            jobs.push((cell, Job { spec, start, setting, name, version: None, folder, finish: args.finish }));
        }
        Ok(Matrix { folder, jobs, finish: args.finish })
    }

    /// All runs.
    pub fn jobs(&self) -> impl Iterator<Item = &Job> {
        self.jobs.iter().map(|(_, job)| job)
    }

    /// Runs what is not done yet. A run that fails for a reason of its own, such as a loss that is no number, is told and does
    /// not hold up the others.
    ///
    /// # Errors
    /// The disk or the device, or, once all others are done, the runs that failed.
    pub fn run(&self, config: &Config, device: &Chosen, dataset: &Dataset, screen: &mut Screen) -> Result<(), Fatal> {
        let (mut rows, mut failed, mut left) = (Vec::new(), Vec::new(), Vec::new());
        let n_runs = self.jobs.len();
        for (at, (cell, job)) in self.jobs.iter().enumerate() {
            let name = &cell.name;
            let done = match self.done(job, dataset, screen)? {
                Some(done) => {
                    screen.tell_line(format!("Run {} of {n_runs}, {name}: done before, as {}", at + 1, done.model));
                    done
                }
                None if self.finish && !job.has_best()? => {
                    screen.tell_line(format!("Run {} of {n_runs}, {name}: has no finished epoch and is left", at + 1));
                    left.push(name.as_str());
                    continue;
                }
                None => {
                    screen.tell_line(format!("Run {} of {n_runs}, {name}:", at + 1));
                    match job.run(config, device, dataset, job.is_begun(), screen) {
                        Ok(Ended::Done { outcome, .. }) => {
                            let model = format!("{name}/{}", outcome.version);
                            let backbone = if job.is_over()? { name.clone() } else { format!("{name} (ended early)") };
                            let row = ModelRow { backbone, ..outcome.row(job.spec) };
                            let done = Done { digest: outcome.digest, model, row };
                            write(&job.folder.join(DONE_FILE), &serde_json::to_vec_pretty(&done).map_err(Fatal::io)?)?;
                            done
                        }
                        Ok(Ended::Stopped) => {
                            screen.tell_line("Stopped. The same command goes on from here.".into());
                            return Ok(());
                        }
                        Err(error) if error.exit == Exit::Config => {
                            screen.tell_line(format!("{name}: {error}"));
                            failed.push(name.as_str());
                            continue;
                        }
                        Err(error) => return Err(error),
                    }
                }
            };
            rows.push((done.model, done.row));
            self.compare(&rows, &failed, &left)?;
        }
        if !left.is_empty() {
            let (count, names) = (left.len(), left.join(", "));
            screen
                .tell_line(format!("{count} runs were left: {names}. Without --finish the same command trains them."));
        }
        let table = comparison_table(TITLE, &plain(&rows), By::WeightedLogLoss);
        if screen.json {
            say(comparison_json(&rows, &failed, &left));
        } else {
            say(table.text());
            if !rows.is_empty() {
                say(format!("The comparison: {}", self.folder.join("comparison.html").display()));
            }
        }
        if failed.is_empty() {
            return Ok(());
        }
        Err(Fatal::config(format!("{} of {n_runs} runs failed: {}", failed.len(), failed.join(", "))))
    }

    /// What is known of a run that is done.
    fn done(&self, job: &Job, dataset: &Dataset, screen: &Screen) -> Result<Option<Done>, Fatal> {
        let path = job.folder.join(DONE_FILE);
        if !path.exists() {
            return Ok(None);
        }
        let text = std::fs::read(&path).map_err(|error| Fatal::io(format!("{}: {error}", path.display())))?;
        let done: Done = serde_json::from_slice(&text)
            .map_err(|error| Fatal::config(format!("{}: {error}; delete it to run again", path.display())))?;
        if done.digest != job.digest_of(dataset, screen)? {
            let sentence = "holds a run with other settings or data; give another folder with --run, or delete it";
            return Err(Fatal::config(format!("{} {sentence}", job.folder.display())));
        }
        Ok(Some(done))
    }

    /// What there is so far, as Markdown, a page and JSON.
    fn compare(&self, rows: &[(String, ModelRow)], failed: &[&str], left: &[&str]) -> Result<(), Fatal> {
        let table = comparison_table(TITLE, &plain(rows), By::WeightedLogLoss);
        let page = Page::new(TITLE).table(&table);
        write(&self.folder.join("comparison.md"), table.markdown().as_bytes())?;
        write(&self.folder.join("comparison.html"), page.html().as_bytes())?;
        write(&self.folder.join("comparison.json"), format!("{:#}\n", comparison_json(rows, failed, left)).as_bytes())
    }
}

const TITLE: &str = "Backbones and recipes, each on its validation part";

fn plain(rows: &[(String, ModelRow)]) -> Vec<ModelRow> {
    rows.iter().map(|(_, row)| row.clone()).collect()
}

fn comparison_json(rows: &[(String, ModelRow)], failed: &[&str], left: &[&str]) -> Value {
    let runs: Vec<Value> = rows.iter().map(|(model, row)| json!({ "model": model, "measures": row })).collect();
    json!({ "runs": runs, "failed": failed, "left": left })
}

fn write(path: &Path, bytes: &[u8]) -> Result<(), Fatal> {
    RealDisk.write_whole(path, bytes).map_err(|error| Fatal::io(format!("{}: {error}", path.display())))
}
