"""Routes: the API at the root, as clients know it, and the admin beside it."""

from django.contrib import admin
from django.templatetags.static import static
from django.urls import path
from django.views.generic import RedirectView

from batches.api import api

urlpatterns = [
    path("admin/", admin.site.urls),
    path("favicon.ico", RedirectView.as_view(url=static("batches/icon.svg"))),
    path("", api.urls),
]
handler400 = "batches.errors.bad_request"
handler403 = "batches.errors.permission_denied"
handler404 = "batches.errors.page_not_found"
handler500 = "batches.errors.server_error"
