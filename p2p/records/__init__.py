"""The protobuf messages of signed envelopes and peer records; `p2p.envelope` and `p2p.peer_record` check."""
