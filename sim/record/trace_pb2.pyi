from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class TraceEvent(_message.Message):
    __slots__ = ("type", "peer_id", "timestamp", "publish_message", "reject_message", "duplicate_message", "deliver_message", "add_peer", "remove_peer", "join", "leave", "graft", "prune")
    class Type(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
        __slots__ = ()
        PUBLISH_MESSAGE: _ClassVar[TraceEvent.Type]
        REJECT_MESSAGE: _ClassVar[TraceEvent.Type]
        DUPLICATE_MESSAGE: _ClassVar[TraceEvent.Type]
        DELIVER_MESSAGE: _ClassVar[TraceEvent.Type]
        ADD_PEER: _ClassVar[TraceEvent.Type]
        REMOVE_PEER: _ClassVar[TraceEvent.Type]
        RECV_RPC: _ClassVar[TraceEvent.Type]
        SEND_RPC: _ClassVar[TraceEvent.Type]
        DROP_RPC: _ClassVar[TraceEvent.Type]
        JOIN: _ClassVar[TraceEvent.Type]
        LEAVE: _ClassVar[TraceEvent.Type]
        GRAFT: _ClassVar[TraceEvent.Type]
        PRUNE: _ClassVar[TraceEvent.Type]
    PUBLISH_MESSAGE: TraceEvent.Type
    REJECT_MESSAGE: TraceEvent.Type
    DUPLICATE_MESSAGE: TraceEvent.Type
    DELIVER_MESSAGE: TraceEvent.Type
    ADD_PEER: TraceEvent.Type
    REMOVE_PEER: TraceEvent.Type
    RECV_RPC: TraceEvent.Type
    SEND_RPC: TraceEvent.Type
    DROP_RPC: TraceEvent.Type
    JOIN: TraceEvent.Type
    LEAVE: TraceEvent.Type
    GRAFT: TraceEvent.Type
    PRUNE: TraceEvent.Type
    class PublishMessage(_message.Message):
        __slots__ = ("message_id", "topic")
        MESSAGE_ID_FIELD_NUMBER: _ClassVar[int]
        TOPIC_FIELD_NUMBER: _ClassVar[int]
        message_id: bytes
        topic: str
        def __init__(self, message_id: _Optional[bytes] = ..., topic: _Optional[str] = ...) -> None: ...
    class RejectMessage(_message.Message):
        __slots__ = ("message_id", "received_from", "reason", "topic")
        MESSAGE_ID_FIELD_NUMBER: _ClassVar[int]
        RECEIVED_FROM_FIELD_NUMBER: _ClassVar[int]
        REASON_FIELD_NUMBER: _ClassVar[int]
        TOPIC_FIELD_NUMBER: _ClassVar[int]
        message_id: bytes
        received_from: bytes
        reason: str
        topic: str
        def __init__(self, message_id: _Optional[bytes] = ..., received_from: _Optional[bytes] = ..., reason: _Optional[str] = ..., topic: _Optional[str] = ...) -> None: ...
    class DuplicateMessage(_message.Message):
        __slots__ = ("message_id", "received_from", "topic")
        MESSAGE_ID_FIELD_NUMBER: _ClassVar[int]
        RECEIVED_FROM_FIELD_NUMBER: _ClassVar[int]
        TOPIC_FIELD_NUMBER: _ClassVar[int]
        message_id: bytes
        received_from: bytes
        topic: str
        def __init__(self, message_id: _Optional[bytes] = ..., received_from: _Optional[bytes] = ..., topic: _Optional[str] = ...) -> None: ...
    class DeliverMessage(_message.Message):
        __slots__ = ("message_id", "topic", "received_from")
        MESSAGE_ID_FIELD_NUMBER: _ClassVar[int]
        TOPIC_FIELD_NUMBER: _ClassVar[int]
        RECEIVED_FROM_FIELD_NUMBER: _ClassVar[int]
        message_id: bytes
        topic: str
        received_from: bytes
        def __init__(self, message_id: _Optional[bytes] = ..., topic: _Optional[str] = ..., received_from: _Optional[bytes] = ...) -> None: ...
    class AddPeer(_message.Message):
        __slots__ = ("peer_id", "proto")
        PEER_ID_FIELD_NUMBER: _ClassVar[int]
        PROTO_FIELD_NUMBER: _ClassVar[int]
        peer_id: bytes
        proto: str
        def __init__(self, peer_id: _Optional[bytes] = ..., proto: _Optional[str] = ...) -> None: ...
    class RemovePeer(_message.Message):
        __slots__ = ("peer_id",)
        PEER_ID_FIELD_NUMBER: _ClassVar[int]
        peer_id: bytes
        def __init__(self, peer_id: _Optional[bytes] = ...) -> None: ...
    class Join(_message.Message):
        __slots__ = ("topic",)
        TOPIC_FIELD_NUMBER: _ClassVar[int]
        topic: str
        def __init__(self, topic: _Optional[str] = ...) -> None: ...
    class Leave(_message.Message):
        __slots__ = ("topic",)
        TOPIC_FIELD_NUMBER: _ClassVar[int]
        topic: str
        def __init__(self, topic: _Optional[str] = ...) -> None: ...
    class Graft(_message.Message):
        __slots__ = ("peer_id", "topic")
        PEER_ID_FIELD_NUMBER: _ClassVar[int]
        TOPIC_FIELD_NUMBER: _ClassVar[int]
        peer_id: bytes
        topic: str
        def __init__(self, peer_id: _Optional[bytes] = ..., topic: _Optional[str] = ...) -> None: ...
    class Prune(_message.Message):
        __slots__ = ("peer_id", "topic")
        PEER_ID_FIELD_NUMBER: _ClassVar[int]
        TOPIC_FIELD_NUMBER: _ClassVar[int]
        peer_id: bytes
        topic: str
        def __init__(self, peer_id: _Optional[bytes] = ..., topic: _Optional[str] = ...) -> None: ...
    TYPE_FIELD_NUMBER: _ClassVar[int]
    PEER_ID_FIELD_NUMBER: _ClassVar[int]
    TIMESTAMP_FIELD_NUMBER: _ClassVar[int]
    PUBLISH_MESSAGE_FIELD_NUMBER: _ClassVar[int]
    REJECT_MESSAGE_FIELD_NUMBER: _ClassVar[int]
    DUPLICATE_MESSAGE_FIELD_NUMBER: _ClassVar[int]
    DELIVER_MESSAGE_FIELD_NUMBER: _ClassVar[int]
    ADD_PEER_FIELD_NUMBER: _ClassVar[int]
    REMOVE_PEER_FIELD_NUMBER: _ClassVar[int]
    JOIN_FIELD_NUMBER: _ClassVar[int]
    LEAVE_FIELD_NUMBER: _ClassVar[int]
    GRAFT_FIELD_NUMBER: _ClassVar[int]
    PRUNE_FIELD_NUMBER: _ClassVar[int]
    type: TraceEvent.Type
    peer_id: bytes
    timestamp: int
    publish_message: TraceEvent.PublishMessage
    reject_message: TraceEvent.RejectMessage
    duplicate_message: TraceEvent.DuplicateMessage
    deliver_message: TraceEvent.DeliverMessage
    add_peer: TraceEvent.AddPeer
    remove_peer: TraceEvent.RemovePeer
    join: TraceEvent.Join
    leave: TraceEvent.Leave
    graft: TraceEvent.Graft
    prune: TraceEvent.Prune
    def __init__(self, type: _Optional[_Union[TraceEvent.Type, str]] = ..., peer_id: _Optional[bytes] = ..., timestamp: _Optional[int] = ..., publish_message: _Optional[_Union[TraceEvent.PublishMessage, _Mapping]] = ..., reject_message: _Optional[_Union[TraceEvent.RejectMessage, _Mapping]] = ..., duplicate_message: _Optional[_Union[TraceEvent.DuplicateMessage, _Mapping]] = ..., deliver_message: _Optional[_Union[TraceEvent.DeliverMessage, _Mapping]] = ..., add_peer: _Optional[_Union[TraceEvent.AddPeer, _Mapping]] = ..., remove_peer: _Optional[_Union[TraceEvent.RemovePeer, _Mapping]] = ..., join: _Optional[_Union[TraceEvent.Join, _Mapping]] = ..., leave: _Optional[_Union[TraceEvent.Leave, _Mapping]] = ..., graft: _Optional[_Union[TraceEvent.Graft, _Mapping]] = ..., prune: _Optional[_Union[TraceEvent.Prune, _Mapping]] = ...) -> None: ...
