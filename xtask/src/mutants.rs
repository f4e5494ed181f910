//! `cargo xtask mutants`: tests of the tests. Each bug here was planted by hand; each stage that is named has to find it.
//!
//! It is planted in a copy of the sources below `target`. A mutant that does not compile, or whose place is not there any more, is an
//! error: it would test nothing.

mod generated;
mod planted;

use std::fs;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

pub(crate) use generated::generated;
use planted::{Planted, Stage, planted};

use crate::sanitize::TARGET;
use crate::{Outcome, command, output};

/// All of them, or those whose name has that in it.
pub(crate) fn mutants(root: &Path, filter: &str) -> Outcome {
    let folder = root.join("target/mutants");
    let sources = folder.join("sources");
    copy(root, &sources)?;
    let chosen: Vec<_> = planted().filter(|it| it.name.contains(filter)).collect();
    let mut survived = 0;
    for Planted { name, file, code, bug, stages } in &chosen {
        let file = sources.join(file);
        let complain = |err: std::io::Error| format!("{}: {err}", file.display());
        let sound = fs::read_to_string(&file).map_err(complain)?;
        if sound.matches(code).count() != 1 {
            return Err(format!(
                "{name}: where it was planted is another code: {}",
                file.display()
            ));
        }
        fs::write(&file, sound.replace(code, bug)).map_err(complain)?;
        let all: Result<Vec<_>, String> =
            stages.iter().map(|stage| Ok((stage, is_caught(&sources, &folder, *stage)?))).collect();
        fs::write(&file, sound).map_err(complain)?;
        let all = all.map_err(|why| format!("{name}: {why}"))?;
        let is_caught = all.iter().all(|(_, caught)| caught.is_some());
        println!("{} {name}", if is_caught { "caught  " } else { "SURVIVED" });
        for (stage, caught) in all {
            match caught {
                Some(time) => println!("  {:6.1} s  {}", time.as_secs_f64(), stage.describe()),
                None => println!("   not found  {}", stage.describe()),
            }
        }
        survived += usize::from(!is_caught);
    }
    match survived {
        0 => Ok(()),
        _ => Err(format!("{survived} of {} planted bugs survived", chosen.len())),
    }
}

/// The files that make the project, as they are now.
fn copy(root: &Path, to: &Path) -> Outcome {
    let list = output("git", &["ls-files".into(), "-z".into()], &[])?;
    for file in list.split('\0').filter(|file| !file.is_empty()) {
        let (from, to) = (root.join(file), to.join(file));
        let complain = |err: std::io::Error| format!("{file}: {err}");
        let Ok(now) = fs::read(&from) else { continue }; // deleted, and not yet said so
        if fs::read(&to).is_ok_and(|before| before == now) {
            continue; // so that cargo need not build it again
        }
        fs::create_dir_all(to.parent().unwrap_or(&to)).map_err(complain)?;
        fs::write(&to, now).map_err(complain)?;
    }
    Ok(())
}

impl Stage {
    /// A line for the report.
    fn describe(&self) -> String {
        match self {
            Stage::Loom(filter) => format!("loom {filter}"),
            Stage::Shuttle(count) => format!("shuttle, {count} histories"),
            Stage::Test(package, which, filter) => {
                [package, which.concat().trim_start_matches("--"), filter].join(" ")
            }
            Stage::Clocks => "the model, on clocks that arm as the system's does".into(),
            Stage::Address(filter) => format!("address {filter}"),
            Stage::Storm(shape) => format!("storm {shape}"),
        }
    }
}

/// How long the stage took to find the bug that the sources have; `None` if it did not.
fn is_caught(sources: &Path, folder: &Path, stage: Stage) -> Result<Option<Duration>, String> {
    let mut shape = "";
    let (mut args, filter, flags) = match stage {
        Stage::Loom(filter) => (
            vec!["test", "-p", "purview", "--lib", "--release"],
            filter,
            "--cfg purview_loom --cap-lints allow",
        ),
        Stage::Shuttle(_) => (
            vec!["test", "-p", "purview", "--lib", "--release"],
            "histories_",
            "--cfg purview_shuttle --cap-lints allow",
        ),
        Stage::Test(package, which, filter) => (
            [&["test", "-p", package, "--all-features"], which].concat(),
            filter,
            "--cap-lints allow",
        ),
        Stage::Clocks => (
            vec!["test", "-p", "purview-conformance", "--test", "model"],
            "",
            "--cfg purview_check --cap-lints allow",
        ),
        Stage::Address(filter) => (
            vec!["test", "-p", "purview", "--test", "it", "--target", TARGET],
            filter,
            "-Zsanitizer=address --cfg purview_sanitize --cap-lints allow",
        ),
        Stage::Storm(only) => {
            // The storm fails, too, if it has no such shape.
            let storm = sources.join("crates/purview/tests/storm/main.rs");
            let storm = fs::read_to_string(storm).map_err(|err| format!("the storm: {err}"))?;
            if !storm.contains(&format!("shape(\"{only}\"")) {
                return Err(format!("the storm has no shape {only}"));
            }
            shape = only;
            (vec!["test", "--release", "-p", "purview", "--test", "storm"], "", "--cap-lints allow")
        }
    };
    let built = match stage {
        Stage::Loom(_) => "loom",
        Stage::Shuttle(_) => "shuttle",
        Stage::Test(..) => "test",
        Stage::Clocks => "clocks",
        Stage::Address(_) => "address",
        Stage::Storm(_) => "storm",
    };
    let built = folder.join(built).display().to_string();
    let histories = if let Stage::Shuttle(count) = stage { count } else { "0" };
    // The models' library is built once for each bug: that is most of the time, and they run no faster for it.
    let quick = if let Stage::Loom(_) = stage { ("off", "true") } else { ("thin", "false") };
    let env = [
        ("CARGO_PROFILE_RELEASE_LTO", quick.0),
        ("CARGO_PROFILE_RELEASE_INCREMENTAL", quick.1),
        ("RUSTFLAGS", flags),
        ("RUSTC_BOOTSTRAP", "1"),
        ("CARGO_TARGET_DIR", &built),
        ("LOOM_MAX_PREEMPTIONS", "2"),
        ("ASAN_OPTIONS", "detect_stack_use_after_return=1:detect_leaks=0"),
        ("PROPTEST_CASES", "2000"),
        ("HISTORIES", histories),
        ("PURVIEW_STORM_ONLY", shape),
        ("PURVIEW_STORM_SECONDS", "60"),
    ];
    let cargo = |args: &[&str], patience: Option<Duration>| {
        let args: Vec<String> = args.iter().map(ToString::to_string).collect();
        let mut command = command("cargo", &args, &env);
        command.current_dir(sources).stdout(Stdio::null()).stderr(Stdio::null());
        ends_well(&mut command, patience)
    };
    args.push("--quiet");
    if !cargo(&[&args[..], &["--no-run"]].concat(), None)? {
        return Err("it does not compile, and tests nothing".into());
    }
    args.extend(["--", filter]);
    let begin = Instant::now();
    let is_sound = cargo(&args, Some(PATIENCE))?;
    Ok((!is_sound).then(|| begin.elapsed()))
}

/// A test that hangs has found something, too.
const PATIENCE: Duration = Duration::from_secs(120);

fn ends_well(command: &mut Command, patience: Option<Duration>) -> Result<bool, String> {
    let mut child = command.process_group(0).spawn().map_err(|err| err.to_string())?;
    let begin = Instant::now();
    loop {
        if let Some(status) = child.try_wait().map_err(|err| err.to_string())? {
            return Ok(status.success());
        }
        if patience.is_some_and(|patience| begin.elapsed() > patience) {
            // cargo, and the test that it has started.
            let group = format!("-{}", child.id());
            let _ = Command::new("kill").args(["-KILL", "--", &group]).status();
            let _ = child.wait();
            return Ok(false);
        }
        thread::sleep(Duration::from_millis(50));
    }
}
