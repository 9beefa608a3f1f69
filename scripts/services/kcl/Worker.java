/**
 * A worker of the Kinesis Client Library, as an application would write one, for tests: reads a stream with its leases in a table, and says on standard output
 * what it is given, a line each, tabs between the words. Stops in order at the end of its standard input.
 *
 * Arguments, NAME=VALUE: stream, table, name, kinesis and dynamodb (endpoints), failover (milliseconds), checkpoint (each: after every batch; marked: where a
 * record's text ends in '!'), steal (leases at a time), make (yes: the table's first leases are made at once, by the library's own classes, which else waits up to 30 s with that).
 */
import java.net.URI;
import java.time.Duration;
import java.util.HashMap;
import java.util.Map;
import java.util.UUID;
import java.util.concurrent.TimeUnit;
import java.util.concurrent.TimeoutException;
import software.amazon.awssdk.http.Protocol;
import software.amazon.awssdk.http.async.SdkAsyncHttpClient;
import software.amazon.awssdk.http.nio.netty.NettyNioAsyncHttpClient;
import software.amazon.awssdk.regions.Region;
import software.amazon.awssdk.services.cloudwatch.CloudWatchAsyncClient;
import software.amazon.awssdk.services.dynamodb.DynamoDbAsyncClient;
import software.amazon.awssdk.services.kinesis.KinesisAsyncClient;
import software.amazon.kinesis.common.ConfigsBuilder;
import software.amazon.kinesis.common.InitialPositionInStream;
import software.amazon.kinesis.common.InitialPositionInStreamExtended;
import software.amazon.kinesis.coordinator.Scheduler;
import software.amazon.kinesis.exceptions.InvalidStateException;
import software.amazon.kinesis.exceptions.ShutdownException;
import software.amazon.kinesis.leases.HierarchicalShardSyncer;
import software.amazon.kinesis.leases.LeaseManagementConfig;
import software.amazon.kinesis.leases.dynamodb.DynamoDBLeaseSerializer;
import software.amazon.kinesis.lifecycle.events.InitializationInput;
import software.amazon.kinesis.lifecycle.events.LeaseLostInput;
import software.amazon.kinesis.lifecycle.events.ProcessRecordsInput;
import software.amazon.kinesis.lifecycle.events.ShardEndedInput;
import software.amazon.kinesis.lifecycle.events.ShutdownRequestedInput;
import software.amazon.kinesis.metrics.MetricsLevel;
import software.amazon.kinesis.metrics.NullMetricsFactory;
import software.amazon.kinesis.metrics.NullMetricsScope;
import software.amazon.kinesis.processor.RecordProcessorCheckpointer;
import software.amazon.kinesis.processor.ShardRecordProcessor;
import software.amazon.kinesis.processor.SingleStreamTracker;
import software.amazon.kinesis.retrieval.KinesisClientRecord;
import software.amazon.kinesis.retrieval.polling.PollingConfig;

public final class Worker {
  private static final Map<String, String> options = new HashMap<>();

  public static void main(String[] args) throws Exception {
    for (String arg : args) { String[] parts = arg.split("=", 2); options.put(parts[0], parts[1]); }
    InitialPositionInStreamExtended oldest = InitialPositionInStreamExtended.newInitialPosition(InitialPositionInStream.TRIM_HORIZON);
    KinesisAsyncClient kinesis = KinesisAsyncClient.builder().httpClient(http()).region(Region.US_EAST_1).endpointOverride(URI.create(options.get("kinesis"))).build();
    DynamoDbAsyncClient dynamodb = DynamoDbAsyncClient.builder().httpClient(http()).region(Region.US_EAST_1).endpointOverride(URI.create(options.get("dynamodb"))).build();
    // Never asked: there are no metrics.
    CloudWatchAsyncClient cloudwatch = CloudWatchAsyncClient.builder().httpClient(http()).region(Region.US_EAST_1).endpointOverride(URI.create("http://127.0.0.1:1")).build();
    String name = options.getOrDefault("name", UUID.randomUUID().toString());
    ConfigsBuilder configs = new ConfigsBuilder(new SingleStreamTracker(options.get("stream"), oldest), options.get("table"), kinesis, dynamodb, cloudwatch, name, Reader::new);
    LeaseManagementConfig leases = configs.leaseManagementConfig().failoverTimeMillis(Long.parseLong(options.get("failover"))).shardSyncIntervalMillis(1000).leasesRecoveryAuditorExecutionFrequencyMillis(1000)
      .maxLeasesToStealAtOneTime(Integer.parseInt(options.getOrDefault("steal", "1")));
    // Of 3.x alone: one worker shares the leases out for all, and is followed by another one when its lock has run out.
    long failover = leases.failoverTimeMillis();
    for (var each : Map.of("dynamoDbLockBasedLeaderLeaseDurationInMillis", 2 * failover, "dynamoDbLockBasedLeaderHeartbeatPeriodInMillis", failover / 2).entrySet()) {
      try { LeaseManagementConfig.class.getMethod(each.getKey(), long.class).invoke(leases, each.getValue()); } catch (NoSuchMethodException error) { /* It is 2.x. */ }
    }
    if ("yes".equals(options.get("make"))) {
      leases.metricsFactory(new NullMetricsFactory());
      var factory = leases.leaseManagementFactory(new DynamoDBLeaseSerializer(), false);
      var table = factory.createLeaseRefresher();
      table.createLeaseTableIfNotExists();
      table.waitUntilLeaseTableExists(1, 30);
      new HierarchicalShardSyncer().checkAndCreateLeaseForNewShards(factory.createShardDetector(new SingleStreamTracker(options.get("stream"), oldest).streamConfigList().get(0)), table, oldest, new NullMetricsScope(), false, true);
    }
    Scheduler scheduler = new Scheduler(
      configs.checkpointConfig(), configs.coordinatorConfig().parentShardPollIntervalMillis(500).shardConsumerDispatchPollIntervalMillis(100).schedulerInitializationBackoffTimeMillis(250), leases,
      configs.lifecycleConfig(), configs.metricsConfig().metricsLevel(MetricsLevel.NONE), configs.processorConfig(),
      configs.retrievalConfig().retrievalSpecificConfig(new PollingConfig(options.get("stream"), kinesis).idleTimeBetweenReadsInMillis(200).usePollingConfigIdleTimeValue(true)));
    Thread running = new Thread(scheduler, "scheduler");
    running.start();
    while (System.in.read() >= 0) { /* to its end */ }
    boolean done = false;
    try { done = scheduler.startGracefulShutdown().get(20, TimeUnit.SECONDS); } catch (TimeoutException error) { /* Said below. */ }
    say(done ? "stopped" : "not stopped in order");
    System.exit(done ? 0 : 1);
  }

  /** The emulators speak no HTTP/2. */
  private static SdkAsyncHttpClient http() { return NettyNioAsyncHttpClient.builder().protocol(Protocol.HTTP1_1).maxConcurrency(50).connectionTimeout(Duration.ofSeconds(5)).build(); }

  private static synchronized void say(Object... words) {
    StringBuilder line = new StringBuilder();
    for (Object word : words) line.append(line.length() == 0 ? "" : "\t").append(word);
    System.out.println(line);
    System.out.flush();
  }

  private static final class Reader implements ShardRecordProcessor {
    private String shard = "";

    @Override public void initialize(InitializationInput input) {
      shard = input.shardId();
      var at = input.extendedSequenceNumber();
      say("begin", shard, at.sequenceNumber(), at.subSequenceNumber());
    }

    @Override public void processRecords(ProcessRecordsInput input) {
      try {
        for (KinesisClientRecord record : input.records()) {
          byte[] bytes = new byte[record.data().remaining()];
          record.data().get(bytes);
          String text = new String(bytes, java.nio.charset.StandardCharsets.UTF_8);
          say("record", shard, record.sequenceNumber(), record.subSequenceNumber(), text);
          if ("marked".equals(options.get("checkpoint")) && text.endsWith("!")) {
            input.checkpointer().checkpoint(record.sequenceNumber(), record.subSequenceNumber());
            say("checkpoint", shard, record.sequenceNumber(), record.subSequenceNumber());
          }
        }
        if ("each".equals(options.get("checkpoint")) && !input.records().isEmpty()) checkpoint(input.checkpointer());
      } catch (ShutdownException error) { say("too late", shard, error.getMessage()); } catch (InvalidStateException error) { throw new IllegalStateException(error); }
    }

    @Override public void leaseLost(LeaseLostInput input) { say("lost", shard); }

    @Override public void shardEnded(ShardEndedInput input) {
      try { checkpoint(input.checkpointer()); } catch (ShutdownException error) { say("too late", shard, error.getMessage()); } catch (InvalidStateException error) { throw new IllegalStateException(error); }
      say("end", shard);
    }

    @Override public void shutdownRequested(ShutdownRequestedInput input) {
      try { if ("each".equals(options.get("checkpoint"))) checkpoint(input.checkpointer()); } catch (ShutdownException error) { say("too late", shard, error.getMessage()); } catch (InvalidStateException error) { throw new IllegalStateException(error); }
      say("stop", shard);
    }

    private void checkpoint(RecordProcessorCheckpointer checkpointer) throws ShutdownException, InvalidStateException {
      checkpointer.checkpoint();
      say("checkpoint", shard);
    }
  }
}
