"""The admin: a window on the rows. Read-only, but for cancelling and deleting batches.

Nothing in it reads an archive, a workspace or a patch. What agents print may
hold their code, and is shown here, to staff, and nowhere else.
"""

from django.contrib import admin
from django.contrib.auth.models import Group
from django_q.models import Failure, OrmQ, Schedule, Success

from batches.admin import batch, following, task

__all__ = ["batch", "following", "task"]

admin.site.site_header = "term-executor"
admin.site.site_title = "term-executor"
admin.site.index_title = "Batches, and what happened to them"
admin.site.enable_nav_sidebar = False  # five lists need no third of the width
admin.site.site_url = None  # there is no page at the root to link to

# The queue's rows are messages, not work: what waits and what failed is told by tasks and
# events, and a form that deletes or runs lanes again would only mislead.
for queued in (Failure, OrmQ, Schedule, Success):
    admin.site.unregister(queued)
# A handful of staff accounts get their permissions one by one.
admin.site.unregister(Group)
