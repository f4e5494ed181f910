//! Times the workloads, or only runs them.

use std::process::ExitCode;

fn main() -> ExitCode {
    purview_benches::main()
}
