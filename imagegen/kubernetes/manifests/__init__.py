"""The API objects that first boot applies, as data: access rules, cluster-info, and the add-ons."""
