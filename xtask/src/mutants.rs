//! `cargo xtask mutants`: tests of the tests. Each bug here was planted by hand; the stage that is named has to find it.
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
use planted::{PLANTED, Planted, Stage};

use crate::sanitize::TARGET;
use crate::{Outcome, command, output};

/// All of them, or those whose name has that in it.
pub(crate) fn mutants(root: &Path, filter: &str) -> Outcome {
    let folder = root.join("target/mutants");
    let sources = folder.join("sources");
    copy(root, &sources)?;
    let chosen: Vec<_> = PLANTED.iter().filter(|it| it.name.contains(filter)).collect();
    let mut survived = 0;
    for Planted { name, file, code, bug, stage } in &chosen {
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
        let caught = is_caught(&sources, &folder, *stage);
        fs::write(&file, sound).map_err(complain)?;
        let caught = caught.map_err(|why| format!("{name}: {why}"))?;
        println!("{} {name}", if caught { "caught  " } else { "SURVIVED" });
        survived += usize::from(!caught);
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

fn is_caught(sources: &Path, folder: &Path, stage: Stage) -> Result<bool, String> {
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
        Stage::Address(filter) => (
            vec!["test", "-p", "purview", "--test", "it", "--target", TARGET],
            filter,
            "-Zsanitizer=address --cfg purview_sanitize --cap-lints allow",
        ),
    };
    let built = match stage {
        Stage::Loom(_) => "loom",
        Stage::Shuttle(_) => "shuttle",
        Stage::Test(..) => "test",
        Stage::Address(_) => "address",
    };
    let built = folder.join(built).display().to_string();
    let histories = if let Stage::Shuttle(count) = stage { count } else { "0" };
    let env = [
        ("RUSTFLAGS", flags),
        ("RUSTC_BOOTSTRAP", "1"),
        ("CARGO_TARGET_DIR", &built),
        ("LOOM_MAX_PREEMPTIONS", "2"),
        ("ASAN_OPTIONS", "detect_stack_use_after_return=1:detect_leaks=0"),
        ("PROPTEST_CASES", "2000"),
        ("HISTORIES", histories),
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
    Ok(!cargo(&args, Some(PATIENCE))?)
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
