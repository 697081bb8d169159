/**
 * The X.509 contexts that a Java workload sees through java-spiffe, until it is stopped: java -cp JARS Watch.java SOCKET
 *
 * One line of JSON for each: the identities, each verified as its peer would, and the trust domains whose bundles came;
 * or why the stream broke for good. java-spiffe itself opens a broken stream again.
 */
import com.google.gson.Gson;
import io.spiffe.svid.x509svid.X509Svid;
import io.spiffe.svid.x509svid.X509SvidValidator;
import io.spiffe.workloadapi.DefaultWorkloadApiClient;
import io.spiffe.workloadapi.Watcher;
import io.spiffe.workloadapi.X509Context;
import java.util.ArrayList;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import java.util.concurrent.CountDownLatch;

class Watch {
    public static void main(String[] arguments) throws Exception {
        var options = DefaultWorkloadApiClient.ClientOptions.builder().spiffeSocketPath(arguments[0]).build();
        try (var client = DefaultWorkloadApiClient.newClient(options)) {
            client.watchX509Context(new Watcher<X509Context>() {
                @Override
                public void onUpdate(X509Context context) {
                    try {
                        tell("update", updated(context));
                    } catch (Exception error) {
                        tell("invalid", Map.of("message", error.toString()));
                    }
                }

                @Override
                public void onError(Throwable error) {
                    tell("lost", Map.of("message", error.toString()));
                }
            });
            new CountDownLatch(1).await();
        }
    }

    static Map<String, Object> updated(X509Context context) throws Exception {
        List<Object> svids = new ArrayList<>();
        for (X509Svid svid : context.getX509Svids()) {
            X509SvidValidator.verifyChain(svid.getChain(), context.getX509BundleSet());
            svids.add(Map.of("id", svid.getSpiffeId().toString(), "hint", svid.getHint()));
        }
        Map<String, Object> bundles = new LinkedHashMap<>();
        context.getX509BundleSet().getBundles()
            .forEach((domain, bundle) -> bundles.put(domain.getName(), bundle.getX509Authorities().size()));
        return Map.of("svids", svids, "bundles", bundles);
    }

    static synchronized void tell(String event, Map<String, Object> fields) {
        Map<String, Object> line = new LinkedHashMap<>(fields);
        line.put("event", event);
        System.out.println(new Gson().toJson(line));
        System.out.flush();
    }
}
