// The conformance suite of ClusterNetworkPolicy v1beta1 as a Go tool, for `cargo xtask conformance`.
module podgate/conformance/v1beta1

go 1.26.6

tool sigs.k8s.io/network-policy-api/conformance

require sigs.k8s.io/network-policy-api v0.3.0 // indirect
