import datetime

from google.protobuf import timestamp_pb2 as _timestamp_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class RowStatus(_message.Message):
    __slots__ = ("state", "reason", "age_s")
    class State(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
        __slots__ = ()
        STATE_UNSPECIFIED: _ClassVar[RowStatus.State]
        PENDING: _ClassVar[RowStatus.State]
        DONE: _ClassVar[RowStatus.State]
        ERROR: _ClassVar[RowStatus.State]
    STATE_UNSPECIFIED: RowStatus.State
    PENDING: RowStatus.State
    DONE: RowStatus.State
    ERROR: RowStatus.State
    STATE_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    AGE_S_FIELD_NUMBER: _ClassVar[int]
    state: RowStatus.State
    reason: str
    age_s: float
    def __init__(self, state: _Optional[_Union[RowStatus.State, str]] = ..., reason: _Optional[str] = ..., age_s: _Optional[float] = ...) -> None: ...

class ListRequest(_message.Message):
    __slots__ = ("namespace", "name", "client")
    NAMESPACE_FIELD_NUMBER: _ClassVar[int]
    NAME_FIELD_NUMBER: _ClassVar[int]
    CLIENT_FIELD_NUMBER: _ClassVar[int]
    namespace: str
    name: str
    client: str
    def __init__(self, namespace: _Optional[str] = ..., name: _Optional[str] = ..., client: _Optional[str] = ...) -> None: ...

class GetStatusRequest(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class NodeStatus(_message.Message):
    __slots__ = ("node", "version", "mode", "kernel", "stage", "started", "healthy", "checks", "tables", "unfinished")
    NODE_FIELD_NUMBER: _ClassVar[int]
    VERSION_FIELD_NUMBER: _ClassVar[int]
    MODE_FIELD_NUMBER: _ClassVar[int]
    KERNEL_FIELD_NUMBER: _ClassVar[int]
    STAGE_FIELD_NUMBER: _ClassVar[int]
    STARTED_FIELD_NUMBER: _ClassVar[int]
    HEALTHY_FIELD_NUMBER: _ClassVar[int]
    CHECKS_FIELD_NUMBER: _ClassVar[int]
    TABLES_FIELD_NUMBER: _ClassVar[int]
    UNFINISHED_FIELD_NUMBER: _ClassVar[int]
    node: str
    version: str
    mode: str
    kernel: str
    stage: str
    started: _timestamp_pb2.Timestamp
    healthy: bool
    checks: _containers.RepeatedCompositeFieldContainer[Check]
    tables: _containers.RepeatedCompositeFieldContainer[TableUse]
    unfinished: _containers.RepeatedCompositeFieldContainer[TableRow]
    def __init__(self, node: _Optional[str] = ..., version: _Optional[str] = ..., mode: _Optional[str] = ..., kernel: _Optional[str] = ..., stage: _Optional[str] = ..., started: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., healthy: _Optional[bool] = ..., checks: _Optional[_Iterable[_Union[Check, _Mapping]]] = ..., tables: _Optional[_Iterable[_Union[TableUse, _Mapping]]] = ..., unfinished: _Optional[_Iterable[_Union[TableRow, _Mapping]]] = ...) -> None: ...

class Check(_message.Message):
    __slots__ = ("name", "passed", "message")
    NAME_FIELD_NUMBER: _ClassVar[int]
    PASSED_FIELD_NUMBER: _ClassVar[int]
    MESSAGE_FIELD_NUMBER: _ClassVar[int]
    name: str
    passed: bool
    message: str
    def __init__(self, name: _Optional[str] = ..., passed: _Optional[bool] = ..., message: _Optional[str] = ...) -> None: ...

class TableUse(_message.Message):
    __slots__ = ("name", "rows", "max_entries", "pending", "errors")
    NAME_FIELD_NUMBER: _ClassVar[int]
    ROWS_FIELD_NUMBER: _ClassVar[int]
    MAX_ENTRIES_FIELD_NUMBER: _ClassVar[int]
    PENDING_FIELD_NUMBER: _ClassVar[int]
    ERRORS_FIELD_NUMBER: _ClassVar[int]
    name: str
    rows: int
    max_entries: int
    pending: int
    errors: int
    def __init__(self, name: _Optional[str] = ..., rows: _Optional[int] = ..., max_entries: _Optional[int] = ..., pending: _Optional[int] = ..., errors: _Optional[int] = ...) -> None: ...

class ServiceList(_message.Message):
    __slots__ = ("items",)
    ITEMS_FIELD_NUMBER: _ClassVar[int]
    items: _containers.RepeatedCompositeFieldContainer[Service]
    def __init__(self, items: _Optional[_Iterable[_Union[Service, _Mapping]]] = ...) -> None: ...

class Service(_message.Message):
    __slots__ = ("namespace", "name", "type", "cluster_ips", "ports", "status", "internal_traffic_policy", "external_traffic_policy", "affinity_s", "traffic_distribution", "source_ranges", "publishes_not_ready", "health_check_node_port", "broken", "outcomes")
    NAMESPACE_FIELD_NUMBER: _ClassVar[int]
    NAME_FIELD_NUMBER: _ClassVar[int]
    TYPE_FIELD_NUMBER: _ClassVar[int]
    CLUSTER_IPS_FIELD_NUMBER: _ClassVar[int]
    PORTS_FIELD_NUMBER: _ClassVar[int]
    STATUS_FIELD_NUMBER: _ClassVar[int]
    INTERNAL_TRAFFIC_POLICY_FIELD_NUMBER: _ClassVar[int]
    EXTERNAL_TRAFFIC_POLICY_FIELD_NUMBER: _ClassVar[int]
    AFFINITY_S_FIELD_NUMBER: _ClassVar[int]
    TRAFFIC_DISTRIBUTION_FIELD_NUMBER: _ClassVar[int]
    SOURCE_RANGES_FIELD_NUMBER: _ClassVar[int]
    PUBLISHES_NOT_READY_FIELD_NUMBER: _ClassVar[int]
    HEALTH_CHECK_NODE_PORT_FIELD_NUMBER: _ClassVar[int]
    BROKEN_FIELD_NUMBER: _ClassVar[int]
    OUTCOMES_FIELD_NUMBER: _ClassVar[int]
    namespace: str
    name: str
    type: str
    cluster_ips: _containers.RepeatedScalarFieldContainer[str]
    ports: _containers.RepeatedCompositeFieldContainer[ServicePort]
    status: RowStatus
    internal_traffic_policy: str
    external_traffic_policy: str
    affinity_s: int
    traffic_distribution: str
    source_ranges: _containers.RepeatedScalarFieldContainer[str]
    publishes_not_ready: bool
    health_check_node_port: int
    broken: str
    outcomes: _containers.RepeatedCompositeFieldContainer[Outcome]
    def __init__(self, namespace: _Optional[str] = ..., name: _Optional[str] = ..., type: _Optional[str] = ..., cluster_ips: _Optional[_Iterable[str]] = ..., ports: _Optional[_Iterable[_Union[ServicePort, _Mapping]]] = ..., status: _Optional[_Union[RowStatus, _Mapping]] = ..., internal_traffic_policy: _Optional[str] = ..., external_traffic_policy: _Optional[str] = ..., affinity_s: _Optional[int] = ..., traffic_distribution: _Optional[str] = ..., source_ranges: _Optional[_Iterable[str]] = ..., publishes_not_ready: _Optional[bool] = ..., health_check_node_port: _Optional[int] = ..., broken: _Optional[str] = ..., outcomes: _Optional[_Iterable[_Union[Outcome, _Mapping]]] = ...) -> None: ...

class Outcome(_message.Message):
    __slots__ = ("address", "port", "protocol", "port_name", "origin", "gets", "endpoints", "only_from")
    ADDRESS_FIELD_NUMBER: _ClassVar[int]
    PORT_FIELD_NUMBER: _ClassVar[int]
    PROTOCOL_FIELD_NUMBER: _ClassVar[int]
    PORT_NAME_FIELD_NUMBER: _ClassVar[int]
    ORIGIN_FIELD_NUMBER: _ClassVar[int]
    GETS_FIELD_NUMBER: _ClassVar[int]
    ENDPOINTS_FIELD_NUMBER: _ClassVar[int]
    ONLY_FROM_FIELD_NUMBER: _ClassVar[int]
    address: str
    port: int
    protocol: str
    port_name: str
    origin: str
    gets: str
    endpoints: _containers.RepeatedCompositeFieldContainer[Behind]
    only_from: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, address: _Optional[str] = ..., port: _Optional[int] = ..., protocol: _Optional[str] = ..., port_name: _Optional[str] = ..., origin: _Optional[str] = ..., gets: _Optional[str] = ..., endpoints: _Optional[_Iterable[_Union[Behind, _Mapping]]] = ..., only_from: _Optional[_Iterable[str]] = ...) -> None: ...

class Behind(_message.Message):
    __slots__ = ("address", "port", "seen_as")
    ADDRESS_FIELD_NUMBER: _ClassVar[int]
    PORT_FIELD_NUMBER: _ClassVar[int]
    SEEN_AS_FIELD_NUMBER: _ClassVar[int]
    address: str
    port: int
    seen_as: str
    def __init__(self, address: _Optional[str] = ..., port: _Optional[int] = ..., seen_as: _Optional[str] = ...) -> None: ...

class ServicePort(_message.Message):
    __slots__ = ("name", "protocol", "port", "frontends")
    NAME_FIELD_NUMBER: _ClassVar[int]
    PROTOCOL_FIELD_NUMBER: _ClassVar[int]
    PORT_FIELD_NUMBER: _ClassVar[int]
    FRONTENDS_FIELD_NUMBER: _ClassVar[int]
    name: str
    protocol: str
    port: int
    frontends: _containers.RepeatedCompositeFieldContainer[Frontend]
    def __init__(self, name: _Optional[str] = ..., protocol: _Optional[str] = ..., port: _Optional[int] = ..., frontends: _Optional[_Iterable[_Union[Frontend, _Mapping]]] = ...) -> None: ...

class Frontend(_message.Message):
    __slots__ = ("address", "port", "endpoints", "status", "origin", "not_served", "outside_endpoints")
    ADDRESS_FIELD_NUMBER: _ClassVar[int]
    PORT_FIELD_NUMBER: _ClassVar[int]
    ENDPOINTS_FIELD_NUMBER: _ClassVar[int]
    STATUS_FIELD_NUMBER: _ClassVar[int]
    ORIGIN_FIELD_NUMBER: _ClassVar[int]
    NOT_SERVED_FIELD_NUMBER: _ClassVar[int]
    OUTSIDE_ENDPOINTS_FIELD_NUMBER: _ClassVar[int]
    address: str
    port: int
    endpoints: int
    status: RowStatus
    origin: str
    not_served: str
    outside_endpoints: int
    def __init__(self, address: _Optional[str] = ..., port: _Optional[int] = ..., endpoints: _Optional[int] = ..., status: _Optional[_Union[RowStatus, _Mapping]] = ..., origin: _Optional[str] = ..., not_served: _Optional[str] = ..., outside_endpoints: _Optional[int] = ...) -> None: ...

class EndpointList(_message.Message):
    __slots__ = ("items",)
    ITEMS_FIELD_NUMBER: _ClassVar[int]
    items: _containers.RepeatedCompositeFieldContainer[Endpoint]
    def __init__(self, items: _Optional[_Iterable[_Union[Endpoint, _Mapping]]] = ...) -> None: ...

class Endpoint(_message.Message):
    __slots__ = ("namespace", "service", "port_name", "protocol", "address", "port", "pod", "node", "ready", "serving", "terminating", "chosen", "status", "zone", "unused")
    NAMESPACE_FIELD_NUMBER: _ClassVar[int]
    SERVICE_FIELD_NUMBER: _ClassVar[int]
    PORT_NAME_FIELD_NUMBER: _ClassVar[int]
    PROTOCOL_FIELD_NUMBER: _ClassVar[int]
    ADDRESS_FIELD_NUMBER: _ClassVar[int]
    PORT_FIELD_NUMBER: _ClassVar[int]
    POD_FIELD_NUMBER: _ClassVar[int]
    NODE_FIELD_NUMBER: _ClassVar[int]
    READY_FIELD_NUMBER: _ClassVar[int]
    SERVING_FIELD_NUMBER: _ClassVar[int]
    TERMINATING_FIELD_NUMBER: _ClassVar[int]
    CHOSEN_FIELD_NUMBER: _ClassVar[int]
    STATUS_FIELD_NUMBER: _ClassVar[int]
    ZONE_FIELD_NUMBER: _ClassVar[int]
    UNUSED_FIELD_NUMBER: _ClassVar[int]
    namespace: str
    service: str
    port_name: str
    protocol: str
    address: str
    port: int
    pod: str
    node: str
    ready: bool
    serving: bool
    terminating: bool
    chosen: bool
    status: RowStatus
    zone: str
    unused: str
    def __init__(self, namespace: _Optional[str] = ..., service: _Optional[str] = ..., port_name: _Optional[str] = ..., protocol: _Optional[str] = ..., address: _Optional[str] = ..., port: _Optional[int] = ..., pod: _Optional[str] = ..., node: _Optional[str] = ..., ready: _Optional[bool] = ..., serving: _Optional[bool] = ..., terminating: _Optional[bool] = ..., chosen: _Optional[bool] = ..., status: _Optional[_Union[RowStatus, _Mapping]] = ..., zone: _Optional[str] = ..., unused: _Optional[str] = ...) -> None: ...

class WorkloadList(_message.Message):
    __slots__ = ("items",)
    ITEMS_FIELD_NUMBER: _ClassVar[int]
    items: _containers.RepeatedCompositeFieldContainer[Workload]
    def __init__(self, items: _Optional[_Iterable[_Union[Workload, _Mapping]]] = ...) -> None: ...

class Workload(_message.Message):
    __slots__ = ("namespace", "name", "uid", "addresses", "link", "ifindex", "mac", "ingress", "egress", "status", "stack", "own_sockets")
    NAMESPACE_FIELD_NUMBER: _ClassVar[int]
    NAME_FIELD_NUMBER: _ClassVar[int]
    UID_FIELD_NUMBER: _ClassVar[int]
    ADDRESSES_FIELD_NUMBER: _ClassVar[int]
    LINK_FIELD_NUMBER: _ClassVar[int]
    IFINDEX_FIELD_NUMBER: _ClassVar[int]
    MAC_FIELD_NUMBER: _ClassVar[int]
    INGRESS_FIELD_NUMBER: _ClassVar[int]
    EGRESS_FIELD_NUMBER: _ClassVar[int]
    STATUS_FIELD_NUMBER: _ClassVar[int]
    STACK_FIELD_NUMBER: _ClassVar[int]
    OWN_SOCKETS_FIELD_NUMBER: _ClassVar[int]
    namespace: str
    name: str
    uid: str
    addresses: _containers.RepeatedScalarFieldContainer[str]
    link: str
    ifindex: int
    mac: str
    ingress: Isolation
    egress: Isolation
    status: RowStatus
    stack: _containers.RepeatedScalarFieldContainer[str]
    own_sockets: bool
    def __init__(self, namespace: _Optional[str] = ..., name: _Optional[str] = ..., uid: _Optional[str] = ..., addresses: _Optional[_Iterable[str]] = ..., link: _Optional[str] = ..., ifindex: _Optional[int] = ..., mac: _Optional[str] = ..., ingress: _Optional[_Union[Isolation, _Mapping]] = ..., egress: _Optional[_Union[Isolation, _Mapping]] = ..., status: _Optional[_Union[RowStatus, _Mapping]] = ..., stack: _Optional[_Iterable[str]] = ..., own_sockets: _Optional[bool] = ...) -> None: ...

class Isolation(_message.Message):
    __slots__ = ("isolated", "rule_set", "policies")
    ISOLATED_FIELD_NUMBER: _ClassVar[int]
    RULE_SET_FIELD_NUMBER: _ClassVar[int]
    POLICIES_FIELD_NUMBER: _ClassVar[int]
    isolated: bool
    rule_set: str
    policies: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, isolated: _Optional[bool] = ..., rule_set: _Optional[str] = ..., policies: _Optional[_Iterable[str]] = ...) -> None: ...

class PolicyList(_message.Message):
    __slots__ = ("items",)
    ITEMS_FIELD_NUMBER: _ClassVar[int]
    items: _containers.RepeatedCompositeFieldContainer[Policy]
    def __init__(self, items: _Optional[_Iterable[_Union[Policy, _Mapping]]] = ...) -> None: ...

class Policy(_message.Message):
    __slots__ = ("namespace", "name", "ingress", "egress", "workloads", "broken", "status")
    NAMESPACE_FIELD_NUMBER: _ClassVar[int]
    NAME_FIELD_NUMBER: _ClassVar[int]
    INGRESS_FIELD_NUMBER: _ClassVar[int]
    EGRESS_FIELD_NUMBER: _ClassVar[int]
    WORKLOADS_FIELD_NUMBER: _ClassVar[int]
    BROKEN_FIELD_NUMBER: _ClassVar[int]
    STATUS_FIELD_NUMBER: _ClassVar[int]
    namespace: str
    name: str
    ingress: bool
    egress: bool
    workloads: _containers.RepeatedScalarFieldContainer[str]
    broken: str
    status: RowStatus
    def __init__(self, namespace: _Optional[str] = ..., name: _Optional[str] = ..., ingress: _Optional[bool] = ..., egress: _Optional[bool] = ..., workloads: _Optional[_Iterable[str]] = ..., broken: _Optional[str] = ..., status: _Optional[_Union[RowStatus, _Mapping]] = ...) -> None: ...

class NodeList(_message.Message):
    __slots__ = ("items",)
    ITEMS_FIELD_NUMBER: _ClassVar[int]
    items: _containers.RepeatedCompositeFieldContainer[Node]
    def __init__(self, items: _Optional[_Iterable[_Union[Node, _Mapping]]] = ...) -> None: ...

class Node(_message.Message):
    __slots__ = ("name", "addresses", "pod_ranges", "own", "status")
    NAME_FIELD_NUMBER: _ClassVar[int]
    ADDRESSES_FIELD_NUMBER: _ClassVar[int]
    POD_RANGES_FIELD_NUMBER: _ClassVar[int]
    OWN_FIELD_NUMBER: _ClassVar[int]
    STATUS_FIELD_NUMBER: _ClassVar[int]
    name: str
    addresses: _containers.RepeatedScalarFieldContainer[str]
    pod_ranges: _containers.RepeatedCompositeFieldContainer[Range]
    own: bool
    status: RowStatus
    def __init__(self, name: _Optional[str] = ..., addresses: _Optional[_Iterable[str]] = ..., pod_ranges: _Optional[_Iterable[_Union[Range, _Mapping]]] = ..., own: _Optional[bool] = ..., status: _Optional[_Union[RowStatus, _Mapping]] = ...) -> None: ...

class Range(_message.Message):
    __slots__ = ("cidr", "via", "status", "way", "link", "why")
    CIDR_FIELD_NUMBER: _ClassVar[int]
    VIA_FIELD_NUMBER: _ClassVar[int]
    STATUS_FIELD_NUMBER: _ClassVar[int]
    WAY_FIELD_NUMBER: _ClassVar[int]
    LINK_FIELD_NUMBER: _ClassVar[int]
    WHY_FIELD_NUMBER: _ClassVar[int]
    cidr: str
    via: str
    status: RowStatus
    way: str
    link: str
    why: str
    def __init__(self, cidr: _Optional[str] = ..., via: _Optional[str] = ..., status: _Optional[_Union[RowStatus, _Mapping]] = ..., way: _Optional[str] = ..., link: _Optional[str] = ..., why: _Optional[str] = ...) -> None: ...

class ListCountersRequest(_message.Message):
    __slots__ = ("drops_only",)
    DROPS_ONLY_FIELD_NUMBER: _ClassVar[int]
    drops_only: bool
    def __init__(self, drops_only: _Optional[bool] = ...) -> None: ...

class CounterList(_message.Message):
    __slots__ = ("items",)
    ITEMS_FIELD_NUMBER: _ClassVar[int]
    items: _containers.RepeatedCompositeFieldContainer[Counter]
    def __init__(self, items: _Optional[_Iterable[_Union[Counter, _Mapping]]] = ...) -> None: ...

class Counter(_message.Message):
    __slots__ = ("reason", "direction", "drop", "packets", "bytes", "meaning")
    REASON_FIELD_NUMBER: _ClassVar[int]
    DIRECTION_FIELD_NUMBER: _ClassVar[int]
    DROP_FIELD_NUMBER: _ClassVar[int]
    PACKETS_FIELD_NUMBER: _ClassVar[int]
    BYTES_FIELD_NUMBER: _ClassVar[int]
    MEANING_FIELD_NUMBER: _ClassVar[int]
    reason: str
    direction: str
    drop: bool
    packets: int
    bytes: int
    meaning: str
    def __init__(self, reason: _Optional[str] = ..., direction: _Optional[str] = ..., drop: _Optional[bool] = ..., packets: _Optional[int] = ..., bytes: _Optional[int] = ..., meaning: _Optional[str] = ...) -> None: ...

class CompareTablesRequest(_message.Message):
    __slots__ = ("tables", "all_rows")
    TABLES_FIELD_NUMBER: _ClassVar[int]
    ALL_ROWS_FIELD_NUMBER: _ClassVar[int]
    tables: _containers.RepeatedScalarFieldContainer[str]
    all_rows: bool
    def __init__(self, tables: _Optional[_Iterable[str]] = ..., all_rows: _Optional[bool] = ...) -> None: ...

class TableRowList(_message.Message):
    __slots__ = ("items",)
    ITEMS_FIELD_NUMBER: _ClassVar[int]
    items: _containers.RepeatedCompositeFieldContainer[TableRow]
    def __init__(self, items: _Optional[_Iterable[_Union[TableRow, _Mapping]]] = ...) -> None: ...

class TableRow(_message.Message):
    __slots__ = ("table", "key", "desired", "actual", "difference", "status")
    class Difference(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
        __slots__ = ()
        EQUAL: _ClassVar[TableRow.Difference]
        MISSING: _ClassVar[TableRow.Difference]
        UNWANTED: _ClassVar[TableRow.Difference]
        DIFFERENT: _ClassVar[TableRow.Difference]
    EQUAL: TableRow.Difference
    MISSING: TableRow.Difference
    UNWANTED: TableRow.Difference
    DIFFERENT: TableRow.Difference
    TABLE_FIELD_NUMBER: _ClassVar[int]
    KEY_FIELD_NUMBER: _ClassVar[int]
    DESIRED_FIELD_NUMBER: _ClassVar[int]
    ACTUAL_FIELD_NUMBER: _ClassVar[int]
    DIFFERENCE_FIELD_NUMBER: _ClassVar[int]
    STATUS_FIELD_NUMBER: _ClassVar[int]
    table: str
    key: str
    desired: str
    actual: str
    difference: TableRow.Difference
    status: RowStatus
    def __init__(self, table: _Optional[str] = ..., key: _Optional[str] = ..., desired: _Optional[str] = ..., actual: _Optional[str] = ..., difference: _Optional[_Union[TableRow.Difference, str]] = ..., status: _Optional[_Union[RowStatus, _Mapping]] = ...) -> None: ...

class WatchFlowsRequest(_message.Message):
    __slots__ = ("drops_only", "namespace", "pod")
    DROPS_ONLY_FIELD_NUMBER: _ClassVar[int]
    NAMESPACE_FIELD_NUMBER: _ClassVar[int]
    POD_FIELD_NUMBER: _ClassVar[int]
    drops_only: bool
    namespace: str
    pod: str
    def __init__(self, drops_only: _Optional[bool] = ..., namespace: _Optional[str] = ..., pod: _Optional[str] = ...) -> None: ...

class FlowEvent(_message.Message):
    __slots__ = ("flow", "lost")
    FLOW_FIELD_NUMBER: _ClassVar[int]
    LOST_FIELD_NUMBER: _ClassVar[int]
    flow: Flow
    lost: int
    def __init__(self, flow: _Optional[_Union[Flow, _Mapping]] = ..., lost: _Optional[int] = ...) -> None: ...

class Flow(_message.Message):
    __slots__ = ("time", "dropped", "reason", "direction", "protocol", "source", "destination", "dialled", "tcp_flags", "bytes", "link", "policies", "explanation")
    TIME_FIELD_NUMBER: _ClassVar[int]
    DROPPED_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    DIRECTION_FIELD_NUMBER: _ClassVar[int]
    PROTOCOL_FIELD_NUMBER: _ClassVar[int]
    SOURCE_FIELD_NUMBER: _ClassVar[int]
    DESTINATION_FIELD_NUMBER: _ClassVar[int]
    DIALLED_FIELD_NUMBER: _ClassVar[int]
    TCP_FLAGS_FIELD_NUMBER: _ClassVar[int]
    BYTES_FIELD_NUMBER: _ClassVar[int]
    LINK_FIELD_NUMBER: _ClassVar[int]
    POLICIES_FIELD_NUMBER: _ClassVar[int]
    EXPLANATION_FIELD_NUMBER: _ClassVar[int]
    time: _timestamp_pb2.Timestamp
    dropped: bool
    reason: str
    direction: str
    protocol: str
    source: FlowEnd
    destination: FlowEnd
    dialled: FlowEnd
    tcp_flags: str
    bytes: int
    link: str
    policies: _containers.RepeatedScalarFieldContainer[str]
    explanation: str
    def __init__(self, time: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., dropped: _Optional[bool] = ..., reason: _Optional[str] = ..., direction: _Optional[str] = ..., protocol: _Optional[str] = ..., source: _Optional[_Union[FlowEnd, _Mapping]] = ..., destination: _Optional[_Union[FlowEnd, _Mapping]] = ..., dialled: _Optional[_Union[FlowEnd, _Mapping]] = ..., tcp_flags: _Optional[str] = ..., bytes: _Optional[int] = ..., link: _Optional[str] = ..., policies: _Optional[_Iterable[str]] = ..., explanation: _Optional[str] = ...) -> None: ...

class FlowEnd(_message.Message):
    __slots__ = ("address", "port", "kind", "name")
    ADDRESS_FIELD_NUMBER: _ClassVar[int]
    PORT_FIELD_NUMBER: _ClassVar[int]
    KIND_FIELD_NUMBER: _ClassVar[int]
    NAME_FIELD_NUMBER: _ClassVar[int]
    address: str
    port: int
    kind: str
    name: str
    def __init__(self, address: _Optional[str] = ..., port: _Optional[int] = ..., kind: _Optional[str] = ..., name: _Optional[str] = ...) -> None: ...
