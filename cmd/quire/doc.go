// Command quire is an etcd server: it takes etcd's flags, environment and
// configuration file, opens the parts, joins them, and stops them in order.
//
// This package knows no behaviour of the server. It owns
//
//   - Config and its three sources (flags.go, env.go, configfile.go) with
//     etcd's precedence: a configuration file alone, else flags over
//     environment over defaults; Validate reports every fault at once;
//   - the log (logging.go, logoutput.go, loglevel.go): zap JSON in etcd's form,
//     behind a bounded queue that drops and counts rather than making a request
//     wait for a terminal; tracing.go sends OpenTelemetry spans;
//   - member and cluster IDs from the bootstrap flags (identity.go);
//   - sockets (listen.go), what is served on them (ports.go) with which TLS
//     (security.go, package certs), signals and the order of start and stop
//     (serve.go);
//   - what compares this member's data with the others' (checks.go, package
//     corruption);
//   - the command line by quire's name and by etcd's (commands.go, help.go);
//   - the offline subcommands dump and check (offline.go), restore, import and
//     export (subcommand.go).
//
// It fails by exiting with 1, or with 2 if a flag cannot be parsed, and one
// message per fault; nothing has been touched when the fault is in the
// configuration.
package main
