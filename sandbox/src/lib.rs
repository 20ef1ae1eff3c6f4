//! Drover on one machine, without an account: emulated AWS, a model of GitHub and Lambda's Runtime API, over real HTTP on
//! loopback, driving the unmodified executables.
