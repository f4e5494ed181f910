module purview-peer

go 1.24
