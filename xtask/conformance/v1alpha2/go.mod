// The conformance suite of ClusterNetworkPolicy v1alpha2 as a Go tool, for `cargo xtask conformance`.
module podgate/conformance/v1alpha2

go 1.26

tool sigs.k8s.io/network-policy-api/conformance

require sigs.k8s.io/network-policy-api v0.2.0 // indirect
