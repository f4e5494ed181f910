module purview-benches

// Before 1.23 timers behaved otherwise, and a module that asks for less gets that.
go 1.23
