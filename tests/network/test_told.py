"""What hosts are told alike they hold once, and each sees of it what is elsewhere."""

from __future__ import annotations

import msgspec

from agents.network.store import Held
from agents.network.told import told
from agents.network.world import World
from schema.network.wiring import Endpoint, News, Peer, Piece, Wiring, encode

ONE = Peer(id="one", network_id="n", mac_address="fa:16:3e:00:00:01", endpoint_ip="10.0.0.1", host="h1")
TWO = Peer(id="two", network_id="n", mac_address="fa:16:3e:00:00:02", endpoint_ip="10.0.0.2", host="h2")
HERE = Endpoint(network_id="n", host="h1", ip="10.0.0.1")


def news(*pieces: Piece, gone: tuple[str, ...] = ()) -> msgspec.Raw:
    keys = {it: f"peer/{it.id}" if isinstance(it, Peer) else f"endpoint/{it.network_id}/{it.host}" for it in pieces}
    return msgspec.Raw(encode(News(of="network/n", pieces={keys[it]: it for it in pieces}, gone=gone)))


def word(*common: msgspec.Raw, position: int = 1, gone: tuple[str, ...] = (), full: bool = False) -> Wiring:
    return Wiring(epoch=1, position=position, common=common, gone=gone, full=full)


def test_hosts_that_were_told_the_same_hold_it_once():
    first, _ = told(Held(), word(news(ONE, HERE)))
    second, _ = told(Held(), word(news(ONE, HERE)))
    assert second.common["network/n"] is first.common["network/n"]
    both = word(news(TWO), position=2)
    assert told(first, both)[0].common["network/n"] is told(second, both)[0].common["network/n"]
    assert "peer/two" not in first.common["network/n"]


def test_hosts_that_came_at_different_times_hold_it_once_too():
    first, _ = told(told(Held(), word(news(ONE)))[0], word(news(TWO), position=2))
    late, _ = told(Held(), word(news(TWO, ONE), position=2))
    assert late.common["network/n"] is first.common["network/n"]
    more = word(news(HERE), news(gone=("peer/one",)), position=3)
    other, _ = told(Held(), word(news(TWO, ONE, HERE), position=3))
    assert told(first, more)[0].common["network/n"] is told(other, more)[0].common["network/n"]


def test_what_is_the_hosts_own_is_no_peer_there():
    held, touched = told(Held(), word(news(ONE, TWO, HERE)))
    assert touched == {"peer/one", "peer/two", "network/n"}
    assert set(World({}, held.common, host="h1").peers) == {"two"}
    assert set(World({}, held.common, host="h2").pieces) == {"peer/one", "endpoint/n/h1"}


def test_what_is_gone_leaves_alone_or_with_its_network():
    held, _ = told(Held(), word(news(ONE, TWO)))
    less, touched = told(held, word(news(gone=("peer/one",)), position=2))
    assert (set(less.common["network/n"]), touched) == ({"peer/two"}, {"peer/one"})
    nothing, touched = told(less, word(position=3, gone=("network/n",)))
    assert (nothing.common, touched) == ({}, {"network/n", "peer/two"})
    anew, touched = told(held, word(news(TWO), position=4, full=True))
    assert (set(anew.common["network/n"]), touched) == ({"peer/two"}, {"peer/one", "peer/two"})


def test_what_was_kept_on_disk_goes_on():
    held, _ = told(Held(), word(news(ONE)))
    kept = msgspec.json.decode(msgspec.json.encode(held), type=Held)
    after, _ = told(kept, word(news(TWO), position=2))
    assert set(after.common["network/n"]) == {"peer/one", "peer/two"}
