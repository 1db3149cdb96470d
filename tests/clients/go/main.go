// A Go client that knows nothing but an address: it learns the messages by reflection, then calls.
package main

import (
	"context"
	"fmt"
	"log"
	"os"
	"sync"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/encoding/gzip"
	health "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/metadata"
	reflection "google.golang.org/grpc/reflection/grpc_reflection_v1"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protodesc"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/types/descriptorpb"
	"google.golang.org/protobuf/types/dynamicpb"
)

const service = "inference.GRPCInferenceService"

type client struct {
	connection *grpc.ClientConn
	file       protoreflect.FileDescriptor
}

func main() {
	log.SetFlags(0)
	connection, err := grpc.NewClient(os.Args[1], grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithDefaultCallOptions(grpc.MaxCallRecvMsgSize(64<<20)))
	must(err)
	defer connection.Close()
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Minute)
	defer cancel()
	answer, err := health.NewHealthClient(connection).Check(ctx, &health.HealthCheckRequest{Service: service})
	must(err)
	expect(health.HealthCheckResponse_SERVING, answer.Status)
	one := &client{connection, described(ctx, connection)}
	one.call(ctx)
	one.refusals(ctx)
	one.manyAtOnce(ctx)
	one.large(ctx)
	one.givenUp(ctx)
	one.call(ctx)
	fmt.Println("all well")
}

func described(ctx context.Context, connection *grpc.ClientConn) protoreflect.FileDescriptor {
	stream, err := reflection.NewServerReflectionClient(connection).ServerReflectionInfo(ctx)
	must(err)
	asked := &reflection.ServerReflectionRequest_FileContainingSymbol{FileContainingSymbol: service}
	must(stream.Send(&reflection.ServerReflectionRequest{MessageRequest: asked}))
	answer, err := stream.Recv()
	must(err)
	must(stream.CloseSend())
	described := &descriptorpb.FileDescriptorProto{}
	must(proto.Unmarshal(answer.GetFileDescriptorResponse().FileDescriptorProto[0], described))
	file, err := protodesc.NewFile(described, nil)
	must(err)
	return file
}

func (c *client) message(name protoreflect.Name) *dynamicpb.Message {
	return dynamicpb.NewMessage(c.file.Messages().ByName(name))
}

func (c *client) infer(ctx context.Context, model string, first float64, count int, options ...grpc.CallOption) (string, error) {
	carriers, distances, months := "", "", ""
	for row := range count {
		comma := ","
		if row == 0 {
			comma = ""
		}
		carriers += comma + `"VUE="`
		distances += fmt.Sprintf("%s%v", comma, first+float64(row))
		months += fmt.Sprintf("%s%d", comma, row%3)
	}
	text := fmt.Sprintf(`{"modelName": "%s", "inputs": [
		{"name": "carrier", "datatype": "BYTES", "shape": [%[2]d], "contents": {"bytesContents": [%[3]s]}},
		{"name": "distance", "datatype": "FP32", "shape": [%[2]d], "contents": {"fp32Contents": [%[4]s]}},
		{"name": "month", "datatype": "INT64", "shape": [%[2]d], "contents": {"int64Contents": [%[5]s]}}]}`,
		model, count, carriers, distances, months)
	request, answer := c.message("ModelInferRequest"), c.message("ModelInferResponse")
	must(protojson.Unmarshal([]byte(text), request))
	err := c.connection.Invoke(ctx, "/"+service+"/ModelInfer", request, answer, options...)
	outputs := answer.Get(answer.Descriptor().Fields().ByName("outputs")).List()
	if err != nil || outputs.Len() != 3 {
		return "", err
	}
	output := outputs.Get(1).Message()
	contents := output.Get(output.Descriptor().Fields().ByName("contents")).Message()
	values := contents.Get(contents.Descriptor().Fields().ByName("fp32_contents")).List()
	return fmt.Sprintf("%d values, the first is %v", values.Len(), values.Get(0).Float()), nil
}

func (c *client) call(ctx context.Context) {
	var head metadata.MD
	ctx = metadata.AppendToOutgoingContext(ctx, "x-request-id", "go-7")
	said, err := c.infer(ctx, "toy", 0.5, 2, grpc.Header(&head))
	must(err)
	expect("2 values, the first is 0.5", said)
	expect("go-7", head.Get("x-request-id")[0])
	expect("c0ffee1234", head.Get("slipway-content")[0])
}

func (c *client) refusals(ctx context.Context) {
	_, err := c.infer(ctx, "other", 0, 1)
	expect(codes.NotFound, status.Code(err))
	expect(`there is no model of that name here; this is "toy"`, status.Convert(err).Message())
	late, cancel := context.WithTimeout(ctx, 50*time.Microsecond)
	defer cancel()
	_, err = c.infer(late, "toy", 0, 1)
	expect(codes.DeadlineExceeded, status.Code(err))
}

func (c *client) manyAtOnce(ctx context.Context) {
	var group sync.WaitGroup
	for worker := range 100 {
		group.Go(func() {
			for turn := range 20 {
				number := float64(worker*20+turn) + 0.5
				said, err := c.infer(ctx, "toy", number, 1)
				must(err)
				expect(fmt.Sprintf("1 values, the first is %v", number), said)
			}
		})
	}
	group.Wait()
}

func (c *client) large(ctx context.Context) {
	for _, options := range [][]grpc.CallOption{nil, {grpc.UseCompressor(gzip.Name)}} {
		said, err := c.infer(ctx, "toy", 0, 20000, options...)
		must(err)
		expect("20000 values, the first is 0", said)
	}
}

func (c *client) givenUp(ctx context.Context) {
	for range 50 {
		hurried, cancel := context.WithCancel(ctx)
		go c.infer(hurried, "toy", 0, 1)
		cancel()
	}
}

func must(err error) {
	if err != nil {
		log.Fatal(err)
	}
}

func expect(wanted, found any) {
	if wanted != found {
		log.Fatalf("expected %v, found %v", wanted, found)
	}
}
