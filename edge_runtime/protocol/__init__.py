"""The wire: framing, message headers, and frames in shared memory; `docs/protocol.md` is its authority."""
