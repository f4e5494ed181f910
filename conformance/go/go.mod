module purview-conformance

go 1.25
