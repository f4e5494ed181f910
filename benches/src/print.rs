//! A line of JSON for every figure.
#![expect(clippy::print_stdout, reason = "it is read by whoever started this")]

use std::io::{self, Write};

use crate::case::Case;

pub(crate) fn figure(case: &Case, metric: &str, value: f64, disturbed: bool) {
    let (row, name, peer) = (case.row, &case.name, case.peer.name());
    println!(
        r#"{{"row":"{row}","case":"{name}","peer":"{peer}","metric":"{metric}","value":{value:.4},"disturbed":{disturbed}}}"#
    );
    let _ = io::stdout().flush(); // what was measured stays, whatever the next one does
}

/// It could not be measured. Why is on stderr.
pub(crate) fn failure(case: &Case) {
    let (row, name, peer) = (case.row, &case.name, case.peer.name());
    println!(r#"{{"row":"{row}","case":"{name}","peer":"{peer}","metric":"failed","value":0}}"#);
}

/// A loop on one thread, which can be counted.
pub(crate) fn name(case: &Case) {
    println!(r#"{{"row":"{}","case":"{}","peer":"{}"}}"#, case.row, case.name, case.peer.name());
}
