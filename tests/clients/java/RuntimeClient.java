import com.google.protobuf.ByteString;
import com.google.protobuf.DescriptorProtos.FileDescriptorProto;
import com.google.protobuf.Descriptors.Descriptor;
import com.google.protobuf.Descriptors.FileDescriptor;
import com.google.protobuf.DynamicMessage;
import com.google.protobuf.util.JsonFormat;
import io.grpc.CallOptions;
import io.grpc.Channel;
import io.grpc.ClientInterceptors;
import io.grpc.ConnectivityState;
import io.grpc.ManagedChannel;
import io.grpc.Metadata;
import io.grpc.MethodDescriptor;
import io.grpc.StatusRuntimeException;
import io.grpc.health.v1.HealthCheckRequest;
import io.grpc.health.v1.HealthGrpc;
import io.grpc.netty.shaded.io.grpc.netty.NettyChannelBuilder;
import io.grpc.protobuf.ProtoUtils;
import io.grpc.reflection.v1.ServerReflectionGrpc;
import io.grpc.reflection.v1.ServerReflectionRequest;
import io.grpc.reflection.v1.ServerReflectionResponse;
import io.grpc.stub.ClientCalls;
import io.grpc.stub.MetadataUtils;
import io.grpc.stub.StreamObserver;
import java.util.ArrayList;
import java.util.List;
import java.util.concurrent.CompletableFuture;
import java.util.concurrent.Future;
import java.util.concurrent.TimeUnit;
import java.util.concurrent.atomic.AtomicReference;

/** A Java client that knows nothing but an address: it learns the messages by reflection, then calls. */
public final class RuntimeClient {
  private static final String SERVICE = "inference.GRPCInferenceService";

  public static void main(String[] arguments) throws Exception {
    ManagedChannel channel = NettyChannelBuilder.forTarget(arguments[0]).usePlaintext().build();
    try {
      health(channel);
      MethodDescriptor<DynamicMessage, DynamicMessage> infer = infer(channel);
      oneCall(channel, infer);
      refusals(channel, infer);
      manyAtOnce(channel, infer);
      largeAndCompressed(channel, infer);
      givenUp(channel, infer);
      System.out.println("all well");
    } finally {
      channel.shutdownNow().awaitTermination(5, TimeUnit.SECONDS);
    }
  }

  private static void health(Channel channel) {
    String status = HealthGrpc.newBlockingStub(channel)
        .check(HealthCheckRequest.newBuilder().setService(SERVICE).build()).getStatus().name();
    expect("SERVING", status);
  }

  private static MethodDescriptor<DynamicMessage, DynamicMessage> infer(Channel channel) throws Exception {
    CompletableFuture<ServerReflectionResponse> waiting = new CompletableFuture<>();
    StreamObserver<ServerReflectionRequest> asking = ServerReflectionGrpc.newStub(channel)
        .serverReflectionInfo(new StreamObserver<>() {
          @Override public void onNext(ServerReflectionResponse answer) {
            waiting.complete(answer);
          }

          @Override public void onError(Throwable error) {
            waiting.completeExceptionally(error);
          }

          @Override public void onCompleted() {}
        });
    asking.onNext(ServerReflectionRequest.newBuilder().setFileContainingSymbol(SERVICE).build());
    ByteString raw = waiting.get(10, TimeUnit.SECONDS).getFileDescriptorResponse().getFileDescriptorProto(0);
    asking.onCompleted();
    FileDescriptor file = FileDescriptor.buildFrom(FileDescriptorProto.parseFrom(raw), new FileDescriptor[0]);
    return MethodDescriptor.<DynamicMessage, DynamicMessage>newBuilder()
        .setType(MethodDescriptor.MethodType.UNARY)
        .setFullMethodName(MethodDescriptor.generateFullMethodName(SERVICE, "ModelInfer"))
        .setRequestMarshaller(marshaller(file.findMessageTypeByName("ModelInferRequest")))
        .setResponseMarshaller(marshaller(file.findMessageTypeByName("ModelInferResponse")))
        .setSchemaDescriptor(file.findMessageTypeByName("ModelInferRequest"))
        .build();
  }

  private static MethodDescriptor.Marshaller<DynamicMessage> marshaller(Descriptor type) {
    return ProtoUtils.marshaller(DynamicMessage.getDefaultInstance(type));
  }

  private static DynamicMessage rows(MethodDescriptor<DynamicMessage, DynamicMessage> infer, String model, int count, float first)
      throws Exception {
    List<String> carriers = new ArrayList<>();
    List<String> distances = new ArrayList<>();
    List<String> months = new ArrayList<>();
    for (int row = 0; row < count; row++) {
      carriers.add("\"VUE=\"");
      distances.add(Float.toString(first + row));
      months.add("\"" + row % 3 + "\"");
    }
    String text = "{\"modelName\": \"" + model + "\", \"id\": \"java\", \"inputs\": ["
        + tensor("carrier", "BYTES", count, "bytesContents", carriers) + ","
        + tensor("distance", "FP32", count, "fp32Contents", distances) + ","
        + tensor("month", "INT64", count, "int64Contents", months) + "]}";
    DynamicMessage.Builder builder = DynamicMessage.newBuilder((Descriptor) infer.getSchemaDescriptor());
    JsonFormat.parser().merge(text, builder);
    return builder.build();
  }

  private static String tensor(String name, String datatype, int count, String field, List<String> values) {
    return "{\"name\": \"" + name + "\", \"datatype\": \"" + datatype + "\", \"shape\": [" + count
        + "], \"contents\": {\"" + field + "\": [" + String.join(",", values) + "]}}";
  }

  private static void oneCall(Channel channel, MethodDescriptor<DynamicMessage, DynamicMessage> infer) throws Exception {
    AtomicReference<Metadata> head = new AtomicReference<>();
    AtomicReference<Metadata> trailer = new AtomicReference<>();
    Metadata own = new Metadata();
    Metadata.Key<String> requestId = Metadata.Key.of("x-request-id", Metadata.ASCII_STRING_MARSHALLER);
    own.put(requestId, "java-7");
    Channel watched = ClientInterceptors.intercept(channel,
        MetadataUtils.newCaptureMetadataInterceptor(head, trailer), MetadataUtils.newAttachHeadersInterceptor(own));
    String answer = JsonFormat.printer()
        .print(ClientCalls.blockingUnaryCall(watched, infer, CallOptions.DEFAULT, rows(infer, "toy", 2, 0.5f)));
    expect("true", "" + answer.contains("\"id\": \"java\""));
    expect("true", "" + answer.contains("1.5"));
    expect("java-7", head.get().get(requestId));
    expect("c0ffee1234", head.get().get(Metadata.Key.of("slipway-content", Metadata.ASCII_STRING_MARSHALLER)));
  }

  private static void refusals(Channel channel, MethodDescriptor<DynamicMessage, DynamicMessage> infer) throws Exception {
    try {
      ClientCalls.blockingUnaryCall(channel, infer, CallOptions.DEFAULT, rows(infer, "other", 1, 0));
      throw new AssertionError("a model that is not there was called");
    } catch (StatusRuntimeException error) {
      expect("NOT_FOUND", error.getStatus().getCode().name());
      expect("true", "" + error.getStatus().getDescription().contains("this is \"toy\""));
    }
    CallOptions hurried = CallOptions.DEFAULT.withDeadlineAfter(-1, TimeUnit.SECONDS);
    try {
      ClientCalls.blockingUnaryCall(channel, infer, hurried, rows(infer, "toy", 1, 0));
      throw new AssertionError("a deadline that had passed was kept");
    } catch (StatusRuntimeException error) {
      expect("DEADLINE_EXCEEDED", error.getStatus().getCode().name());
    }
  }

  private static void manyAtOnce(Channel channel, MethodDescriptor<DynamicMessage, DynamicMessage> infer) throws Exception {
    List<Future<DynamicMessage>> waiting = new ArrayList<>();
    for (int number = 0; number < 2000; number++) {
      CallOptions options = CallOptions.DEFAULT.withDeadlineAfter(30, TimeUnit.SECONDS);
      waiting.add(ClientCalls.futureUnaryCall(channel.newCall(infer, options), rows(infer, "toy", 1, number + 0.5f)));
      if (waiting.size() % 200 == 0) {
        waiting.get(waiting.size() - 1).get(30, TimeUnit.SECONDS);  // no more than the queue takes
      }
    }
    for (int number = 0; number < waiting.size(); number++) {
      String answer = waiting.get(number).get(30, TimeUnit.SECONDS).toString();
      expect("true", "" + answer.contains("fp32_contents: " + (number + 0.5f)));
    }
  }

  private static void largeAndCompressed(Channel channel, MethodDescriptor<DynamicMessage, DynamicMessage> infer)
      throws Exception {
    DynamicMessage large = rows(infer, "toy", 60_000, 0);
    for (String way : new String[] {"identity", "gzip"}) {
      DynamicMessage answer =
          ClientCalls.blockingUnaryCall(channel, infer, CallOptions.DEFAULT.withCompression(way), large);
      expect("true", "" + (answer.getSerializedSize() > 60_000 * 8));
    }
  }

  private static void givenUp(ManagedChannel channel, MethodDescriptor<DynamicMessage, DynamicMessage> infer)
      throws Exception {
    for (int number = 0; number < 50; number++) {
      ClientCalls.futureUnaryCall(channel.newCall(infer, CallOptions.DEFAULT), rows(infer, "toy", 1, 0)).cancel(true);
    }
    oneCall(channel, infer);
    expect(ConnectivityState.READY.name(), channel.getState(false).name());
  }

  private static void expect(String wanted, String found) {
    if (!wanted.equals(found)) {
      throw new AssertionError("expected " + wanted + ", found " + found);
    }
  }
}
