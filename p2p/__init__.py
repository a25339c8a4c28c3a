"""The overlay: a libp2p wire-compatible network on trio."""
