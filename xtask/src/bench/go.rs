//! Go's side of the benchmarks.

use std::path::{Path, PathBuf};

use crate::{output, tools};

pub(crate) struct Go {
    pub(crate) program: PathBuf,
    /// "go1.27.3", say.
    pub(crate) version: String,
}

impl Go {
    pub(crate) fn build(root: &Path, folder: &Path) -> Result<Go, String> {
        let go = tools::fetch(root, tools::GO)?;
        let program = folder.join("go-bench");
        let (cache, path) = (text(&folder.join("go-cache")), text(&folder.join("go-path")));
        let env = [("GOCACHE", &*cache), ("GOPATH", &*path), ("GOTOOLCHAIN", "local")];
        run(&text(&go), &["-C", "benches/go", "build", "-o", &text(&program), "."], &env)?;
        let version = run(&text(&go), &["env", "GOVERSION"], &env)?;
        Ok(Go { program, version: version.trim().to_string() })
    }
}

fn run(program: &str, args: &[&str], env: &[(&str, &str)]) -> Result<String, String> {
    let args: Vec<String> = args.iter().map(ToString::to_string).collect();
    output(program, &args, env)
}

fn text(path: &Path) -> String {
    path.display().to_string()
}
