//! The manifests in `conf/kubernetes`: what the schema of Kubernetes says of them, what must agree in
//! them, and their Pods, run without a cluster.

mod agreement;
mod cluster;
mod manifests;
mod pod;
mod rollout;
