"""What leaves a session: its event log, webhooks, and captions pushed to other services.

In: events by `EventLog.emit`, alerts by `Webhook.put`, closed captions by a subscription of the log. Out:
events to subscribers, live or replayed from the `Store` by seq; signed POSTs; caption posts. `schema` defines
every event, `serialize` the JSON of units. All queues are bounded, and what they drop is counted.
"""

from streamsvc.events.caption_push import Push, Target
from streamsvc.events.log import EventLog
from streamsvc.events.store import Store
from streamsvc.events.subscription import SlowSubscriber, Subscription
from streamsvc.events.webhook import Webhook

__all__ = ["EventLog", "Push", "SlowSubscriber", "Store", "Subscription", "Target", "Webhook"]
