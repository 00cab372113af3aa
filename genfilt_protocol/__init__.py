"""The wire format of GenFilt. genfilt_pb2 and genfilt_pb2_grpc are written by `make genfilt-proto`."""
