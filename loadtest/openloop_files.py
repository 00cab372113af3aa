"""What run.py and the Locust processes that it starts tell each other: names of variables and files."""

SCENARIO_VARIABLE = "LOADTEST_SCENARIO"
FOLDER_VARIABLE = "LOADTEST_FOLDER"
GENFILT_VARIABLE = "LOADTEST_GENFILT"
SHARE_VARIABLE = "LOADTEST_SHARE"  # "index/number": which share of the arrivals this process makes
SATURATE_VARIABLE = "LOADTEST_SATURATE"  # so many callers that wait for their answers, instead of arrivals
CAPACITY_NAME = "capacity.txt"  # answers per second that they got
