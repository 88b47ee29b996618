// Stands for a module of Calico's that Felix does not import and that no version control system has by itself.
module github.com/projectcalico/calico/lib/httpmachinery

go 1.25.0
