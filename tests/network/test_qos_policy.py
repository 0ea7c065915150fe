"""QoS policies: one rule of a type each way, one default for a project, and what is in use stays."""

from handlers.network.qos_policy import QOS_POLICIES
from schema.network.qos_policy import (
    AddQosRule,
    ChangeQosRule,
    CreateQosPolicy,
    DeleteQosPolicy,
    QosPolicyCreated,
    QosPolicyDeleted,
    QosPolicyShared,
    QosPolicyUnshared,
    QosPolicyUpdated,
    QosRule,
    QosRuleAdded,
    QosRuleChanged,
    QosRuleRemoved,
    RemoveQosRule,
    ShareQosPolicy,
    UnshareQosPolicy,
    UpdateQosPolicy,
    UseQosPolicy,
)
from schema.refusal import Conflict, NotFound
from tests.story import Story

policies = Story(QOS_POLICIES)
created = QosPolicyCreated(name="gold", project_id="p")
out = QosRule(id="o", type="bandwidth_limit", max_kbps=1000)
into = QosRule(id="i", type="bandwidth_limit", max_kbps=2000, direction="ingress")
mark = QosRule(id="m", type="dscp_marking", dscp_mark=46)
full = policies.given(created, *(QosRuleAdded(rule=it) for it in (out, into, mark)))


def test_a_policy_is_made_changed_and_deleted():
    made = policies.given().when(CreateQosPolicy(name="gold", project_id="p")).then(created)
    changed = made.when(UpdateQosPolicy(name="silver", is_default=True)).then(
        QosPolicyUpdated(name="silver", is_default=True)
    )
    changed.when(DeleteQosPolicy()).then(QosPolicyDeleted())


def test_a_policy_has_one_limit_each_way_and_one_mark():
    policies.given(created).when(AddQosRule(rule=out)).then(QosRuleAdded(rule=out))
    for rule in (out, into, mark):
        second = QosRule(id="x", type=rule.type, direction=rule.direction, dscp_mark=10)
        full.when(AddQosRule(rule=second)).refused("conflicts with rule", Conflict)
    full.when(ChangeQosRule(rule_id="o", direction="ingress")).refused("conflicts with rule i", Conflict)


def test_rules_change_and_go():
    changed = full.when(ChangeQosRule(rule_id="o", max_kbps=500)).then(
        QosRuleChanged(rule=QosRule(id="o", type="bandwidth_limit", max_kbps=500))
    )
    left = changed.when(RemoveQosRule(rule_id="o")).then(QosRuleRemoved(rule_id="o"))
    assert [it.id for it in left.state.rules] == ["i", "m"]
    left.when(ChangeQosRule(rule_id="o", max_kbps=5)).refused("could not be found", NotFound)


def test_a_policy_is_for_its_project_for_whom_it_is_shared_with_and_for_operators():
    mine = policies.given(created)
    mine.when(UseQosPolicy(project_id="p")).then()
    mine.when(UseQosPolicy(project_id="q", operator=True)).then()
    mine.when(UseQosPolicy(project_id="q")).refused("could not be found", NotFound)
    for whom in ("q", "*"):
        shared = mine.when(ShareQosPolicy(project_id=whom)).then(QosPolicyShared(project_id=whom))
        shared.when(UseQosPolicy(project_id="q")).then()
        shared.when(UnshareQosPolicy(project_id=whom, user="port x")).refused("depend on it", Conflict)
        shared.when(UnshareQosPolicy(project_id=whom)).then(QosPolicyUnshared(project_id=whom))


def test_what_is_gone_is_nobodys():
    gone = policies.given(created, QosPolicyDeleted())
    for operator in (True, False):
        gone.when(UseQosPolicy(project_id="p", operator=operator)).refused("not be found", NotFound)


def test_what_no_driver_can_promise_is_given_to_nothing():
    least = QosRule(id="l", type="minimum_bandwidth", min_kbps=500)
    promised = full.when(AddQosRule(rule=least)).then(QosRuleAdded(rule=least))
    promised.when(UseQosPolicy(project_id="p")).refused("minimum_bandwidth is not supported", Conflict)
    promised.when(UseQosPolicy(project_id="q")).refused("not be found", NotFound)
    promised.when(ChangeQosRule(rule_id="l", min_kbps=1001)).refused("type bandwidth_limit has value 1000", Conflict)
    promised.when(ChangeQosRule(rule_id="o", max_kbps=499)).refused("type minimum_bandwidth has value 500", Conflict)
    kept = promised.when(RemoveQosRule(rule_id="l")).then(QosRuleRemoved(rule_id="l"))
    kept.when(UseQosPolicy(project_id="p")).then()
